"""The method that docs/own-method.md builds: found in a folder of one's own, trained, and under the tests of every method."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.paths import ROOT

Harness = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's file, which DSKD_METHODS names."""
    page = (ROOT / "docs" / "own-method.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    folder = tmp_path / "my-methods"
    folder.mkdir()
    (folder / "confidence_kd.py").write_text(code, encoding="utf-8")
    monkeypatch.setenv("DSKD_METHODS", str(folder))
    return folder


@pytest.mark.slow
def test_it_is_listed_and_trained_beside_the_others(
    folder: Path, tiny: dict[str, Any], write_matrix: Callable[[Any], Path], harness: Harness
) -> None:
    listed = harness("list", "methods", cwd=folder)
    assert "confidence-kd" in listed.stdout
    matrix = str(write_matrix(tiny))
    only = ("--add-method", "confidence-kd", "--only", "method=confidence-kd")
    run = harness("run", "--matrix", matrix, *only, cwd=folder)
    assert run.returncode == 0, run.stderr
    results = list((folder / "runs/tiny/cells").rglob("train/result.json"))
    assert [path.parts[-5:-2] for path in results] == [("teacher__same", "confidence-kd", "seed1")]
    # An edit of the file makes what it trained stale, and nothing else.
    (folder / "confidence_kd.py").open("a").write("# changed\n")
    plan = harness("plan", "--matrix", matrix, *only, cwd=folder)
    assert re.search(r"train .*confidence-kd/seed1 +stale", plan.stdout), plan.stdout


def test_a_class_in_a_file_is_used_by_its_path_wherever_a_method_is_named(
    folder: Path,
    tiny: dict[str, Any],
    write_matrix: Callable[[Any], Path],
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DSKD_METHODS")
    name = "confidence_kd.py:ConfidenceWeightedDistillation"
    shown = harness("show-method", name, "--json", cwd=folder)
    assert json.loads(shown.stdout)["method"] == "confidence-kd", shown.stderr
    matrix = str(write_matrix(tiny | {"methods": {"mine": {"method": name, "kd_rate": 0.25}}}))
    plan = harness("plan", "--matrix", matrix, "--add-method", name, cwd=folder)
    assert "train teacher__same/confidence-kd/seed1" in plan.stdout, plan.stderr
    models = ("--student", "nowhere", "--teacher", "nowhere", "--data", "confidence_kd.py", "--output", "out")
    train = harness("train", "--method", name, "--steps", "1", "--option", "kd_rate=0.25", *models, cwd=folder)
    assert train.stderr.startswith("error: --student: no folder 'nowhere'")
    for wrong, said in {
        "nowhere.py:Method": "nowhere.py: no such file; fix: correct the path",
        "confidence_kd.py:Nothing": "confidence_kd.py: has no class 'Nothing'; fix: correct the name",
    }.items():
        assert re.fullmatch(f"error: NAME: .*{re.escape(said)}.*\n", harness("show-method", wrong, cwd=folder).stderr)


@pytest.mark.slow  # a run of pytest
def test_the_tests_of_every_method_take_it(folder: Path) -> None:
    tests = [f"tests/dskd/{name}.py" for name in ("losses/test_chunked", "data/test_packing")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "confidence-kd", *tests]
    done = subprocess.run(command, cwd=ROOT, env=os.environ.copy(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20  # type: ignore[index]


def test_adding_what_suits_no_pair_is_one_line(
    tiny: dict[str, Any], write_matrix: Callable[[Any], Path], harness: Harness, tmp_path: Path
) -> None:
    tiny["pairs"] = [{"teacher": "teacher", "student": "cross", "methods": ["sft"]}]
    matrix = str(write_matrix(tiny))
    for name, reason in (("kd", "needs one vocabulary"), ("kdd", "no method 'kdd'")):
        done = harness("plan", "--matrix", matrix, "--add-method", name, cwd=tmp_path)
        assert done.returncode == 2
        assert reason in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
