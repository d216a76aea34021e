"""Data of every source in every command that reads some: pipes of real shells, folders, compressed files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from dskd.data import DataOptions
from dskd.data.options import DEFAULT
from harness import tasks
from harness.cli import main
from harness.evaluation.generate import prompts_of_file
from harness.planning import preflight
from harness.planning.single_training import single_plan
from harness.runs.records import read_record
from harness.smallworld.tokenizers import write_byte_level
from harness.steps.base_model import new_model
from harness.steps.data import read_examples
from harness.steps.training import Train
from helpers.paths import ROOT

CONFIG = {
    **{"model_type": "llama", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "max_position_embeddings": 128},
}
ROWS = [{"prompt": f"Say {k}:", "output": f" it is {k}."} for k in range(8)]
TRAIN = "{harness} train --student student --method sft --steps 1 --batch-size 2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    write_byte_level(folder / "tokenizer", ["Say 1234567890: it is, and no more of it."] * 5)
    new_model(CONFIG, folder / "tokenizer", 0, folder / "student")
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "columns").mkdir()
    lines = "".join(f"Say {k}:, it is {k}.\n" for k in range(8))
    (folder / "columns" / "part.csv").write_text("question,answer\n" + lines)
    return folder


def bash(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """A command of bash in a folder, in which {harness} is the command line."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    command = command.replace("{harness}", f"{sys.executable} -m harness.cli")
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def planned(folder: Path, data: str, output: str, options: DataOptions = DEFAULT) -> Train:
    """The training that `harness train` would run."""
    plan = single_plan(
        **{"teacher": None, "student": folder / "student", "data": Path(data), "method": "sft", "method_options": {}},
        **{"training": {"steps": 1, "batch_size": 2}, "teacher_outputs": {}, "launch": {}, "template": {}, "seed": 0},
        **{"limit": None, "output": folder / output, "data_options": options},
    )
    preflight.check(plan, allow_code_execution=False)
    (step,) = (job.step for job in plan.jobs.values() if isinstance(job.step, Train))
    return step


@pytest.mark.slow
def test_a_training_on_a_pipe_is_that_on_the_file_and_is_found_done(folder: Path) -> None:
    first = bash(folder, f"{TRAIN} --data <(cat data.jsonl) --output piped")
    assert first.returncode == 0, first.stderr
    (kept,) = (folder / "piped" / ".harness" / "input").iterdir()
    assert kept.read_bytes() == (folder / "data.jsonl").read_bytes()
    done = (folder / "piped" / "train" / "manifest.json").stat().st_mtime_ns
    again = bash(folder, f"cat data.jsonl | {TRAIN} --data - --output piped")
    assert again.returncode == 0, again.stderr
    assert (folder / "piped" / "train" / "manifest.json").stat().st_mtime_ns == done
    record = read_record(folder / "piped" / "train" / "result.json")
    assert record.identity.hash == planned(folder, str(folder / "data.jsonl"), "planned").fingerprint.hash
    assert set(record.identity.parts["data"]["examples"]) == {"sha256", "prompt", "output"}  # as in every version


def test_a_folder_of_tables_is_trained_on_by_the_names_of_its_columns(folder: Path, tmp_path: Path) -> None:
    step = planned(folder, str(folder / "columns"), "table", DataOptions(prompt="{question}", output="{answer}"))
    path, left_out = read_examples(step.data.examples, tmp_path, tmp_path, "text", None)
    assert [json.loads(line) for line in path.read_text().splitlines()] == ROWS
    assert left_out.total == 0


@pytest.mark.parametrize(
    ("data", "content", "message"),
    [
        ("nowhere.jsonl", None, "--data nowhere.jsonl: no such file; fix: correct the path"),
        ("columns", None, 'the row has question, answer; fix: name the columns, prompt: "{question}", output: "{answer}"'),
        ("-", "", "the file is empty"),
        ("-", '{"prompt": "a", "output": "b"}\n{"prompt": "a", "output": ""}\n', ":2: output is empty"),
        ("-", '{"messages": []}\n', "holds a conversation, and the models have no template"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_trained_on_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, data: str, content: str | None, message: str
) -> None:
    monkeypatch.chdir(folder)
    command = ["train", "--student", "student", "--method", "sft", "--steps", "1", "--output", "refused"]
    done = CliRunner().invoke(main, [*command, "--data", data], input=content)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr
    assert not (folder / "refused" / "train").exists()


def test_a_pipe_is_compared_with_test_items(folder: Path) -> None:
    doc = tasks.load("small_math").docs(1)[0]
    row = {"messages": [{"role": "user", "content": doc["question"]}, {"role": "assistant", "content": doc["answer"]}]}
    (folder / "talk.jsonl").write_text(json.dumps(row) + "\n")
    done = bash(folder, "{harness} data contamination --train <(gzip -c talk.jsonl) --task small_math --json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert (found["examples"], found["ids"]["exact"], found["ids"]["exact_with_answer"]) == (1, ["0"], ["0"])


def test_prompts_come_through_a_pipe(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=((folder / "data.jsonl").read_bytes(),))
    writer.start()
    found = prompts_of_file(tmp_path / "pipe", limit=2)
    writer.join()
    assert found.texts == {"0": "Say 0:", "1": "Say 1:"}


def test_texts_to_align_come_from_standard_input(folder: Path) -> None:
    command = ["align", *("--teacher", str(folder / "tokenizer")), *("--student", str(folder / "tokenizer"))]
    done = CliRunner().invoke(main, [*command, "--text", "-", "--json"], input='{"text": "Say 1"}\n{"text": "Say 2"}\n')
    assert json.loads(done.stdout)["documents"] == 2, done.stderr
    done = CliRunner().invoke(main, [*command, "--text", str(folder / "data.jsonl")])
    assert done.stderr == (
        f'error: {folder}/data.jsonl:1: no string under "text"; the row has prompt, output; '
        'fix: write each line as {"text": "…"}\n'
    )


def test_help_says_what_a_source_is() -> None:
    for command in (["train"], ["generate"], ["align"], ["data", "contamination"], ["data", "show"]):
        assert "FILE|DIR|-|ORG/NAME[:SPLIT]" in CliRunner().invoke(main, [*command, "--help"]).stdout
