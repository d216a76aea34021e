"""Data sets on a hub in a matrix and on the command line: one commit, downloaded once into the run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness.planning.plan import make_plan
from harness.steps.data import PreparedData
from harness.steps.hub_data import HubRows
from helpers.hub_server import HubServer

Content = dict[str, Any]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(tmp_path / "hub") as server:
        add(server, tmp_path, 12)
        server.point_client_here(monkeypatch)
        yield server


def add(server: HubServer, folder: Path, count: int) -> str:
    files = folder / "files"
    files.mkdir(exist_ok=True)
    rows = [{"question": f"{k} + 1?", "answer": k + 1} for k in range(count)]
    (files / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return server.add_dataset("org/sums", files)


def on_hub(content: Content, **keys: Any) -> Content:
    content["data"]["student"] = {"hub": "org/sums", "prompt": "{question}", "output": " {answer}", **keys}
    return content


def steps(plan: Any, cls: type) -> list[Any]:
    return [job.step for job in plan.jobs.values() if isinstance(job.step, cls)]


def test_a_split_is_one_job_of_a_run_and_keeps_its_commit(
    hub: HubServer, tiny: Content, write_matrix: Callable[[Any], Path], tmp_path: Path
) -> None:
    commit = hub.dataset("org/sums").branches["main"]
    path = write_matrix(on_hub(tiny, limit=4))
    plan = make_plan(str(path), output_dir=tmp_path / "run")
    (rows,) = steps(plan, HubRows)
    assert (rows.commit, rows.split) == (commit, "train")
    prepared = steps(plan, PreparedData)
    assert len(prepared) > 1
    assert all(rows in step.needs for step in prepared)
    parts = prepared[0].fingerprint.parts["examples"]
    assert parts["source"] == {"code": 1, "repository": "org/sums", "commit": commit, "split": "train"}
    assert parts["prompt"] == "{question}"
    named = make_plan(str(write_matrix(on_hub(tiny, revision=commit))), output_dir=tmp_path / "other")
    assert steps(named, HubRows)[0].fingerprint.hash == rows.fingerprint.hash  # by whatever name the commit was found
    moved = add(hub, tmp_path, 3)
    other = make_plan(str(write_matrix(on_hub(tiny, revision=moved))), output_dir=tmp_path / "other")
    assert steps(other, HubRows)[0].fingerprint.hash != rows.fingerprint.hash


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"hub": "sums"}, "is no name on the hub; fix: write org/name, or `file` for a file or folder"),
        ({"hub": "org/sums@main", "revision": "main"}, "the revision is given twice"),
        ({"hub": "org/absent"}, "no data set of this name on"),
        ({"revision": "v9"}, "this data set has no such revision"),
        ({"output": None}, "these keys go together"),
        ({"splitt": "train"}, "unknown key; did you mean 'split'?"),
        ({"messages": "m", "prompt": None, "output": None}, "messages: makes conversations, but models.teacher has no template"),
    ],
)  # fmt: skip
def test_a_wrong_data_set_is_one_line_with_its_key(
    hub: HubServer, tiny: Content, write_matrix: Callable[[Any], Path], tmp_path: Path, keys: Content, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        make_plan(str(write_matrix(on_hub(tiny, **keys))), output_dir=tmp_path / "run")
    assert message in str(caught.value)
    assert "data.student" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow  # a whole training
def test_a_training_on_a_name_downloads_its_rows_once(
    hub: HubServer, tiny_folder: Path, harness: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    columns = ["--column", "prompt={question}", "--column", "output= {answer}"]
    command = ["train", "--student", "student", "--method", "sft", "--steps", "1", "--batch-size", "2", *columns]
    done = harness(*command, "--data", "org/sums:train", "--output", "out", cwd=tiny_folder)
    assert done.returncode == 0, done.stderr
    (rows,) = (tiny_folder / "out" / "artifacts" / "hub-data").glob("*/rows.jsonl")
    assert len(rows.read_text().splitlines()) == 12
    hub.requests.clear()
    again = harness(*command, "--data", "org/sums:train", "--output", "out", cwd=tiny_folder)
    assert again.returncode == 0, again.stderr
    assert not [path for _, path in hub.requests if "train.jsonl" in path]
    wrong = harness(*command, "--data", "org/sums:dev", "--output", "wrong", cwd=tiny_folder)
    assert wrong.returncode == 2
    assert "Unknown split \"dev\". Should be one of ['train']" in wrong.stderr.splitlines()[-1]


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    """A folder with a student."""
    from harness.smallworld.tokenizers import write_byte_level
    from harness.steps.base_model import new_model

    config = {
        **{"model_type": "llama", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1},
        **{"num_attention_heads": 2, "max_position_embeddings": 128},
    }
    write_byte_level(tmp_path / "tokenizer", ["0 1 2 3 4 5 6 7 8 9 + 1?"] * 5)
    new_model(config, tmp_path / "tokenizer", 0, tmp_path / "student")
    return tmp_path
