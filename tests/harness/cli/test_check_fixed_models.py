"""`harness check` and `harness baseline` on a folder of fixed models, as a user calls them: with one method, to be quick."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.regression.fixed import baseline as fixed_baseline
from harness.regression.fixed import make
from harness.regression.fixed.folder import MODELS, FixedFolder
from helpers.paths import ROOT
from helpers.planted_defects import planted

COMMITTED = ROOT / "results" / "regression" / "fixed"


def harness(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the committed models and texts without their baseline."""
    monkeypatch.setattr(fixed_baseline, "shipped_methods", lambda: ["sft"])
    shutil.copytree(COMMITTED, tmp_path / "fixed", ignore=shutil.ignore_patterns("baseline.json"))
    return tmp_path / "fixed"


@pytest.mark.slow
def test_a_baseline_is_made_checked_and_updated_with_a_reason(folder: Path, tmp_path: Path) -> None:
    update = ("baseline", "update", "--baseline", folder, "--allow-code-execution", "--reason")
    made = harness(*update, "first")
    assert made.exit_code == 0, made.stderr
    assert "+ first_steps cross/sft" in made.stdout.splitlines()
    assert harness(*update, "again").stderr.endswith("nothing changed\n")
    check = ("check", "--baseline", folder, "--allow-code-execution")
    passed = harness(*check)
    assert (passed.exit_code, passed.stderr) == (0, "13 cells: 13 pass, 0 inconclusive, 0 regress\n")
    with planted("extractor"):
        failed = harness(*check, "--json", "--markdown", tmp_path / "table.md")
    assert failed.exit_code == 1
    assert "regress: scores small_math: " in failed.stderr
    report = json.loads(failed.stdout)
    assert (report["verdict"], report["kind"]) == ("regress", "fixed-models")
    assert "| scores small_math | regress | " in (tmp_path / "table.md").read_text()


def test_wrong_input_is_one_line_with_a_fix(folder: Path, tmp_path: Path) -> None:
    def error(*arguments: str | Path) -> str:
        result = harness(*arguments)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        return result.stderr

    assert "baseline.json: no such file; fix: harness baseline update" in error("check", "--baseline", folder)
    shutil.copy(COMMITTED / "baseline.json", folder)
    assert "it runs the code that a model wrote" in error("check", "--baseline", folder)
    assert "fixed models need no run" in error("check", tmp_path, "--baseline", folder)
    assert "have no margins" in error("check", "--baseline", folder, "--margin", "3")
    update = ("baseline", "update", "--reason", "r", "--baseline")
    assert "needs no run" in error("baseline", "update", tmp_path, "--reason", "r", "--baseline", folder)
    assert "is no folder of fixed models" in error(*update, tmp_path / "none")
    assert "examples.jsonl: no such file" in error(*update, tmp_path)
    with (folder / "examples.jsonl").open("a") as file:
        file.write('{"prompt": "a", "output": "b"}\n')
    assert "examples.jsonl: is not the file that the baseline was made with" in error("check", "--baseline", folder)
    (folder / "baseline.json").write_text("{}")
    assert "make the file with harness baseline update" in error("check", "--baseline", folder)


def test_models_are_made_by_one_command_and_never_over_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "_STEPS", dict.fromkeys(MODELS, 2))
    made = harness("baseline", "make-models", tmp_path / "fixed")
    assert made.exit_code == 0, made.stderr
    FixedFolder(tmp_path / "fixed").require()
    assert "is not empty" in harness("baseline", "make-models", tmp_path / "fixed").stderr
