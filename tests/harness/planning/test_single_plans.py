"""The identities of `harness train` and `harness evaluate`, kept in tests/golden/single_plans.json.

Where a change is meant, as for golden plans: `python -m pytest tests/harness/planning/test_single_plans.py --write-golden`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.planning.plan import Plan
from harness.planning.single_evaluation import evaluation_plan
from harness.planning.single_training import single_plan
from helpers.paths import GOLDEN
from helpers.plan_world import write_folders

KNOWN: dict[str, Any] = json.loads((GOLDEN / "single_plans.json").read_text())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp("single") / "folders")


def case(command: str, name: str, folders: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The arguments of a case, with paths for names of folders, and the identities that it has to have."""
    known = KNOWN[command]["cases"][name]
    arguments = KNOWN[command]["defaults"] | known["options"]
    named = {key for key in ("teacher", "student", "data", "model") if arguments.get(key)}
    return arguments | {key: folders / arguments[key] for key in named}, known["identities"]


def identities(plan: Plan) -> dict[str, str]:
    return {o.output.folder: o.output.fingerprint.hash for job in plan.jobs.values() for o in job.outputs}


def _write(command: str, name: str, found: dict[str, str]) -> None:
    KNOWN[command]["cases"][name]["identities"] = found
    (GOLDEN / "single_plans.json").write_text(json.dumps(KNOWN, indent=1) + "\n")


@pytest.mark.parametrize("name", KNOWN["train"]["cases"])
def test_a_training_outside_a_matrix_keeps_its_identities(
    name: str, folders: Path, tmp_path: Path, write_golden: bool
) -> None:
    arguments, known = case("train", name, folders)
    found = identities(single_plan(**arguments, output=tmp_path))
    if write_golden:
        _write("train", name, known := found)
    assert found == known


@pytest.mark.parametrize("name", KNOWN["evaluate"]["cases"])
def test_an_evaluation_outside_a_matrix_keeps_its_identities(
    name: str, folders: Path, tmp_path: Path, write_golden: bool
) -> None:
    arguments, known = case("evaluate", name, folders)
    found = identities(evaluation_plan(**arguments, output=tmp_path, allow_code_execution=False))
    if write_golden:
        _write("evaluate", name, known := found)
    assert found == known
