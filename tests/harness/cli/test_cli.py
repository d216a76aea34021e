"""The command line's manners: quick help, one line for a mistake, exit code 2 with nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from dskd.errors import InputError
from harness.cli import COMMANDS, main
from harness.runs.identity import Fingerprint
from harness.runs.store import OutputFolder

Content = dict[str, Any]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_examples(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"harness {name}" in result.output.partition("Examples:")[2]


def test_help_imports_no_command() -> None:
    code = (
        "import sys\nfrom harness.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nprint(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(run.stdout.splitlines()[-1].split())
    assert "harness.cli" in modules
    assert all(name in run.stdout for name in COMMANDS)
    assert not modules & {
        "torch",
        "yaml",
        "rich.table",
        *(f"harness.cli.{name.replace('-', '_')}" for name in COMMANDS),
    }


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (
            InputError("file.yaml: key: is wrong; fix: change it"),
            2,
            "error: file.yaml: key: is wrong; fix: change it\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted; finished work is kept, run the same command to resume\n"),
    ],
)
def test_exit_codes_of_mistakes_and_interruptions(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, text: str
) -> None:
    @click.command()
    def command() -> None:
        raise error

    monkeypatch.setattr("harness.cli.plan.command", command)
    result = CliRunner().invoke(main, ["plan"])
    assert result.exit_code == code
    assert result.stderr == text
    assert result.stdout == ""


def own_data(text: str) -> Callable[[Content, Path], None]:
    """A change that trains on a file with this text."""

    def change(content: Content, folder: Path) -> None:
        path = folder / "data.jsonl"
        path.write_text(text)
        content["data"]["student"] = {"file": str(path)}

    return change


def templates(content: Content, folder: Path) -> None:
    own_data('{"question": "q", "answer": "a"}\n{"question": "q"}\n')(content, folder)
    content["data"]["student"] |= {"prompt": "{question}", "output": "{answer}"}


def no_text(content: Content, folder: Path) -> None:
    own_data('{"question": "q", "answer": 1.5}\n{"question": "q", "answer": null}\n')(content, folder)
    content["data"]["student"] |= {"prompt": "{question}", "output": "{answer}"}


def no_offsets(content: Content, folder: Path) -> None:
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "vocab.json").write_text("{}")
    content["models"]["same"]["tokenizer"] = {"path": str(tokenizer)}
    content["pairs"] = [{"teacher": "teacher", "student": "same", "methods": ["sft"]}]


BAD = [
    (own_data(""), [], "data.jsonl: the file is empty"),
    (own_data('{"prompt": "a", "output": "b"}\n{"prompt": \n'), [], "data.jsonl:2: not JSON"),
    (own_data('{"prompt": "a"}\n'), [], "data.jsonl:1: prompt and output must be strings"),
    (templates, [], "data.jsonl:2: has no column 'answer', which the template names"),
    (no_text, [], "data.jsonl:2: column 'answer', which the template names, is neither text nor a number"),
    (no_offsets, [], "tokenizer: no tokenizer can be loaded"),
    (
        lambda m, _: m.update(tasks={"small_code": {}}),
        [],
        "tasks.small_code: executes model-generated code (small_code); fix: pass --allow-code-execution",
    ),
    (lambda m, _: m.update(tasks={"gsm8k": {}}), [], "HARNESS_DATA is not set"),
    (lambda m, _: m["models"].update(same={"path": "nowhere"}), [], "models.same.path: no folder 'nowhere'"),
    (lambda m, _: m.update(sedes=[1]), [], "sedes: unknown key; did you mean 'seeds'?"),
    (
        lambda m, _: None,
        ["--only", "method=kdd"],
        "--only method=kdd: matrix.yaml has no such method; did you mean 'kd'?",
    ),
    (lambda m, _: None, ["--engine", "vlm"], "--engine vlm: no such engine; did you mean 'vllm'?"),
    (lambda m, _: None, ["--set", "X"], "--set X: has no name or no value; fix: write NAME=VALUE"),
    (lambda m, _: None, ["--limit", "0"], "Invalid value for '--limit'"),
    (lambda m, _: None, ["--frobnicate"], "No such option"),
]


@pytest.mark.parametrize(("change", "options", "message"), BAD, ids=[message[:40] for *_, message in BAD])
def test_bad_input_ends_with_one_line_and_exit_code_2_and_nothing_is_written(
    tiny: Content,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Content, Path], Any],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.delenv("HARNESS_HUB", raising=False)
    monkeypatch.chdir(tmp_path)
    change(tiny, tmp_path)
    Path("matrix.yaml").write_text(yaml.safe_dump(tiny))
    before = sorted(path.name for path in tmp_path.rglob("*"))
    result = CliRunner().invoke(main, ["run", "--matrix", "matrix.yaml", *options])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stdout == ""
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_mistake_is_one_line_in_a_real_process_too(
    tmp_path: Path, harness: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "matrix.yaml").write_text("schema_version: 1\n")
    run = harness("run", "--matrix", "matrix.yaml", cwd=tmp_path)
    assert run.returncode == 2
    assert run.stderr == "error: matrix.yaml: name: is missing; fix: add it\n"
    assert [path.name for path in tmp_path.iterdir()] == ["matrix.yaml"]


TRAIN = ["train", "--student", "student", "--data", "data.jsonl", "--output", "out"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "kdd", "--steps", "1"], "--method: no method 'kdd'; did you mean 'kd'?"),
        (["--method", "kd", "--steps", "1"], "--method kd: needs a teacher; fix: give --teacher DIR"),
        (["--method", "sft"], "training options: give either steps or epochs"),
        (["--method", "sft", "--steps", "1", "--option", "x=1"], "--option x: unknown key; known: none"),
        (["--method", "sft", "--steps", "1"], "--student: no folder 'student'; fix: correct the path"),
        (["--method", "sft", "--epochs", "inf"], "--epochs: input should be a finite number"),
        (["--method", "sft", "--steps", "1", "--learning-rate", "inf"], "--learning-rate: input should be a finite"),
        (
            ["--method", "kd", "--teacher", "t", "--steps", "1", "--option", "temperature=inf"],
            "--option temperature: input should be a finite number",
        ),
        (
            ["--method", "dskd-v2", "--teacher", "t", "--steps", "1", "--teacher-outputs", "top_k"],
            "--teacher-outputs: dskd-v2 cannot learn from top_k; fix: kind: hidden_states, or only the methods that can",
        ),
        (
            ["--method", "alm", "--teacher", "t", "--steps", "1", "--teacher-outputs", "text_log_probabilities"],
            "--teacher-outputs: alm cannot learn from text_log_probabilities; fix: kind: hidden_states, or set append_space: false",
        ),
        (
            ["--method", "kd", "--teacher", "t", "--steps", "1", "--top-k", "4"],
            "--cache-dtype and --top-k belong to a teacher cache; fix: add --teacher-outputs",
        ),
        (
            ["--method", "kd", "--teacher", "t", "--steps", "1", "--teacher-outputs", "hidden_states", "--top-k", "4"],
            "--top-k: belongs to --teacher-outputs top_k; fix: leave it out",
        ),
        (
            ["--method", "sft", "--steps", "1", "--batch-size", "4", "--batch-tokens", "100"],
            "training options: give either batch_size or batch_tokens",
        ),
        (
            ["--method", "sft", "--steps", "1", "--accelerate-config", "fsdp9"],
            "--accelerate-config fsdp9: no such accelerate configuration; fix: give a file, or one of ddp-1x8",
        ),
        (
            ["--method", "sft", "--steps", "1", "--set", "lora.dropout=1"],
            "--set lora.dropout: input should be less than",
        ),
        (["--method", "sft", "--set", "stepz=1"], "--set stepz: unknown key; did you mean 'steps'?"),
        (
            ["--method", "sft", "--steps", "1", "--set", "rollouts.replay.capacty=1"],
            "--set rollouts.replay.capacty: unknown key; did you mean 'capacity'?",
        ),
        (["--method", "sft", "--steps", "1", "--set", "steps=2"], "--set steps: is given twice; fix: leave out one"),
        (
            ["--method", "sft", "--set", "dtype=x", "--set", "dtype.y=1"],
            "--set dtype.y: dtype has a value of its own; fix: ",
        ),
        (["--method", "sft", "--set", "steps"], "--set steps: has no name or no value; fix: write NAME=VALUE"),
        (["--method", "sft", "--lora-rank", "4"], "--lora-rank: no such flag; fix: --set lora.rank=VALUE"),
        (["--method", "sft", "--torch-compile"], "--torch-compile: no such flag; fix: --set torch_compile=VALUE"),
        (["--method", "sft", "--frobnicate"], "No such option '--frobnicate'"),
    ],
)
def test_train_names_the_option_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data.jsonl").write_text('{"prompt": "a", "output": "b"}\n')
    result = CliRunner().invoke(main, [*TRAIN, *options])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {message}")
    assert not Path("out").exists()


def test_lists_name_everything_there_is() -> None:
    def listed(what: str) -> list[dict[str, Any]]:
        return json.loads(CliRunner().invoke(main, ["list", what, "--json"]).stdout)

    assert {"dolly", "gsm8k", "humaneval", "small_code"} <= {row["task"] for row in listed("tasks")}
    assert {"sft", "kd", "dskd-v2", "dskd-v2-eta"} <= {row["method"] for row in listed("methods")}
    assert {"quick", "real-cpu"} <= {row["matrix"] for row in listed("matrices")}
    teachers = [row["model"] for row in listed("models") if row["teaches"]]
    assert teachers == ["small-teacher"]


def test_a_piped_table_is_not_folded() -> None:
    # Up to the empty line: after it stands what methods learn from.
    lines = CliRunner().invoke(main, ["list", "methods"]).stdout.split("\n\n")[0].splitlines()
    assert len(lines) == 1 + len({line.split()[0] for line in lines[1:]})


def test_doctor_says_what_is_missing_and_how_to_mend_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0, result.stdout
    assert "warn  HARNESS_DATA   not set; fix: set it to the data folder" in result.stdout
    monkeypatch.setattr("harness.cli.doctor.package_version", lambda name: None if name == "accelerate" else "1")
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert "FAIL  accelerate     not installed; fix: pip install dskd-harness" in result.stdout


def test_leaderboard_of_a_folder_without_records(tmp_path: Path) -> None:
    for folder, message in ((tmp_path / "none", "no such folder"), (tmp_path, "holds no records")):
        result = CliRunner().invoke(main, ["leaderboard", "--results", str(folder)])
        assert result.exit_code == 2
        assert message in result.stderr


def test_train_names_the_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data.jsonl").write_text('{"prompt": "a", "output": "b"}\n')
    Path("student").mkdir()
    for name, text in (("config.json", "{}"), ("model.safetensors", ""), ("tokenizer.json", "{}")):
        (Path("student") / name).write_text(text)
    arguments = [*TRAIN[:-1], "data.jsonl/out", "--method", "sft", "--steps", "1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    root = tmp_path / "data.jsonl"
    assert result.stderr == f"error: data.jsonl/out: {root} is a file, not a folder; fix: give another path\n"


def test_leaderboard_check_names_a_run_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "one/run.json").mkdir(parents=True)
    (tmp_path / "two").mkdir()
    (tmp_path / "two/run.json").write_text("[" * 100_000)
    result = CliRunner().invoke(main, ["leaderboard", "--results", str(tmp_path), "--check"])
    assert result.exit_code == 1
    assert not isinstance(result.exception, (OSError, RecursionError))
    problems = result.stderr.splitlines()
    assert len(problems) == 2
    assert problems[0].startswith(f"problem: {tmp_path}/one/run.json: [Errno 21] Is a directory")
    assert problems[1].startswith(f"problem: {tmp_path}/two/run.json: Invalid JSON")


def test_show_has_the_figures_of_each_of_several_teachers(tmp_path: Path) -> None:
    cell = "experts__student/uld/seed1"
    folder = OutputFolder(tmp_path / "cells" / cell / "train")
    folder.begin("train", "a title", Fingerprint.of({"seed": 1}))
    report = {"losses": {"loss": 1.5, "maths/loss": 1.0, "code/loss": None}, "teachers": {"maths": {"examples": 8}}}
    folder.finish(1.0, report)
    result = CliRunner().invoke(main, ["show", cell, "--results", str(tmp_path)])
    assert "\n  losses: loss 1.5, maths/loss 1\n  teachers: maths examples 8\n" in result.stdout


def test_show_names_the_cell_and_a_damaged_record(tmp_path: Path) -> None:
    cell = "teacher__student/kd/seed1"
    folder = OutputFolder(tmp_path / "cells" / cell / "train")
    folder.begin("train", "a title", Fingerprint.of({"seed": 1}))
    folder.finish(1.0)
    (folder.path / "result.json").write_text('{"cell": ')
    result = CliRunner().invoke(main, ["show", f"{cell}/", "--results", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert shown["cell"] == cell
    (part,) = shown["parts"]
    assert part["error"].startswith(f"{folder.path}/result.json: Invalid JSON")
    assert (part["state"], part["scores"], part["cost"]) == ("done", {}, {})
