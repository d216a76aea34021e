"""`harness generate` as a user calls it: a model and prompts in, a file of answers out, which `harness score` reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness import tasks
from harness.cli import main
from helpers.tiny_models import write_gpt2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("models") / "tiny_model", "Question: how many apples? Answer: 42")


def harness(*arguments: Any) -> Any:
    return CliRunner().invoke(main, [*map(str, arguments)])


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["greedy", "pass@1-sampling"])
def test_the_answers_are_those_of_an_evaluation(model: Path, tmp_path: Path, protocol: str) -> None:
    output = tmp_path / "answers.jsonl"
    settings = ["--task", "small_math", "--limit", 3, "--max-new-tokens", 6, "--engine", "transformers", "--seed", 7]
    written = harness("generate", "--model", model, *settings, "--protocol", protocol, "--output", output)
    assert written.exit_code == 0, written.stderr
    assert written.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]  # nothing else is left
    evaluated = harness(
        "evaluate", "--model", model, *settings, "--protocol", protocol, "--output-dir", tmp_path / "run"
    )
    assert evaluated.exit_code == 0, evaluated.stderr
    (samples,) = (tmp_path / "run").rglob("samples.jsonl")
    keys = ("id", "index", "output", "finish_reason", "generated_tokens", "prompt_truncated")
    expected = [{key: sample[key] for key in keys} for sample in rows(samples)]
    assert rows(output) == [{**sample, "response_format": "completion"} for sample in expected]
    assert len(rows(output)) == (3 if protocol == "greedy" else 60)


@pytest.mark.slow  # a whole task
def test_a_whole_task_is_scored_from_the_file(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    settings = ["--task", "small_instruct", "--max-new-tokens", 4, "--engine", "transformers"]
    written = harness("generate", "--model", model, *settings, "--output", output)
    assert f"score them: harness score --task small_instruct --predictions {output}\n" in written.stderr
    scored = harness("score", "--task", "small_instruct", "--predictions", output, "--json")
    assert scored.exit_code == 0, scored.stderr
    content = json.loads(scored.stdout)
    assert content["n"]["total"] == len(tasks.load("small_instruct").docs())
    assert content["n"]["truncated"] == sum(row["finish_reason"] == "length" for row in rows(output)) > 0


@pytest.mark.slow
def test_prompts_of_ones_own_are_asked_as_they_are(model: Path, tmp_path: Path) -> None:
    prompts, output = tmp_path / "mine.jsonl", tmp_path / "answers.jsonl"
    prompts.write_text('{"id": "a", "prompt": "Question: how many"}\n{"prompt": "Answer: "}\n', encoding="utf-8")
    arguments = ["--model", model, "--prompts", prompts, "--max-new-tokens", 12, "--engine", "transformers"]
    assert harness("generate", *arguments, "--output", output).exit_code == 0
    free = rows(output)
    assert [row["id"] for row in free] == ["a", "1"]
    end = free[0]["output"][2:4]
    assert end
    stopped = harness("generate", *arguments, "--stop", end, "--output", output, "--overwrite")
    assert stopped.exit_code == 0
    assert rows(output)[0]["output"] == free[0]["output"].split(end)[0]
    assert rows(output)[0]["finish_reason"] == "stop"


@pytest.mark.slow
def test_killed_and_called_again_it_goes_on(model: Path, tmp_path: Path) -> None:
    def command(output: Path) -> list[str]:
        settings = (
            f"--task small_math --limit 40 --max-new-tokens 40 --engine transformers --max-batch-size 2 --model {model}"
        )
        return [sys.executable, "-m", "harness.cli", "generate", *settings.split(), "--output", str(output)]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, killed = tmp_path / "whole" / "answers.jsonl", tmp_path / "killed" / "answers.jsonl"
    subprocess.run(command(whole), env=environment, check=True, capture_output=True, timeout=300)
    process = subprocess.Popen(
        command(killed), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    start = time.monotonic()
    while not (kept := list(killed.parent.glob(".answers.jsonl.*.answers"))) or kept[0].read_bytes().count(b"\n") < 5:
        assert process.poll() is None, "it was too quick to be killed"
        assert time.monotonic() - start < 200
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    kept_before = len(kept[0].read_bytes().splitlines())
    again = subprocess.run(command(killed), env=environment, check=True, capture_output=True, timeout=300, text=True)
    assert kept_before >= 5
    assert killed.read_bytes() == whole.read_bytes()
    assert "answers: 40 in" in again.stderr
    assert [path.name for path in killed.parent.iterdir()] == ["answers.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs either --task or --prompts; fix:"),
        (["--task", "small_math", "--prompts", "{prompts}"], "needs either --task or --prompts; fix:"),
        (["--task", "small_math", "--stop", "x"], "--stop: task small_math has its own"),
        (["--task", "small_math", "--protocol", "hot"], "--protocol hot: no such protocol; fix: one of greedy"),
        (["--task", "small_math", "--engine", "vlm"], "--engine vlm: no such engine"),
        (["--task", "small_maths"], "small_maths"),
        (["--prompts", "{prompts}", "--output", "{prompts}"], "is there already; fix: name another file"),
        (["--prompts", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--prompts", "{twice}"], ':2: the id "a" appears twice'),
        (["--prompts", "{number}"], ':1: "id" is no text'),
        (["--prompts", "{empty}"], ':1: "prompt" is missing'),
        (["--prompts", "{prompts}", "--model", "nowhere"], "nowhere"),
    ],
)
def test_what_is_given_wrong_is_one_line_and_nothing_is_written(
    model: Path, tmp_path: Path, arguments: list[Any], message: str
) -> None:
    files = {
        "prompts": '{"prompt": "a"}\n',
        "twice": '{"id": "a", "prompt": "a"}\n{"id": "a", "prompt": "b"}\n',
        "number": '{"id": 1, "prompt": "a"}\n',
        "empty": '{"id": "a"}\n',
    }
    paths = {name: tmp_path / f"{name}.jsonl" for name in files}
    for name, content in files.items():
        paths[name].write_text(content)
    given = [argument.format(**paths) for argument in arguments]
    result = harness("generate", "--model", model, "--output", tmp_path / "out.jsonl", *given)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths.values()}
    assert paths["prompts"].read_text() == files["prompts"]
