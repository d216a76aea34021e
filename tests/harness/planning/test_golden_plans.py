"""The identity of every job of all shipped matrices and of some odd ones, as they were before the planner was rebuilt.

An identity that changes makes finished work stale on every machine. Where that is meant, say so in the changelog and write the files
anew: `python -m pytest tests/harness/planning/test_golden_plans.py --write-golden`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness.jobs.inputs import referred
from harness.planning.plan import make_plan
from harness.steps.base import Step
from helpers.golden_matrices import NAMES, PLANS, located
from helpers.plan_world import write_folders


def plan(*arguments: str) -> dict[str, Any]:
    """What `harness plan --json` prints."""
    from harness.cli import main

    result = CliRunner().invoke(main, ["plan", "--json", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def described(name: str, folders: Path) -> dict[str, Any]:
    """The plan of a matrix in a folder that is empty, without the paths of this machine."""
    matrix, variables = located(name, folders)
    given = [f"--set={key}={value}" for key, value in variables.items()]
    found = plan("--matrix", matrix, "--output-dir", str(folders / "runs" / name), *given)
    del found["output_dir"]
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp("plans") / "folders")


def changed_identities(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The outputs whose identity changed, a sentence each, and only those where the change begins."""
    old = {output["folder"]: output["identity"] for job in before["jobs"] for output in job["outputs"]}
    changed: dict[str, list[str]] = {}
    for job in now["jobs"]:
        for output in job["outputs"]:
            earlier = old.pop(output["folder"], "absent")
            if earlier != output["identity"]:
                line = f"{job['title']} ({output['folder']}): {earlier} -> {output['identity']}"
                changed.setdefault(job["id"], []).append(line)
    needs = {job["id"]: job["needs"] for job in now["jobs"]}
    begins = [line for key, lines in changed.items() if not changed.keys() & set(needs[key]) for line in lines]
    return begins + [f"{folder}: {identity} -> absent" for folder, identity in old.items() if not changed]


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_is_what_it_was(name: str, folders: Path, write_golden: bool) -> None:
    path, plan_now = PLANS / f"{name}.json", described(name, folders)
    if write_golden:
        path.write_text(json.dumps(plan_now, indent=1) + "\n")
    before = json.loads(path.read_text())
    assert changed_identities(before, plan_now) == []
    assert plan_now == before


def test_a_changed_identity_is_named_where_the_change_begins() -> None:
    before = json.loads((PLANS / "live.json").read_text())
    now = json.loads((PLANS / "live.json").read_text())
    data = next(job for job in now["jobs"] if job["kind"] == "data")
    readers = [job for job in now["jobs"] if data["id"] in job["needs"]]
    assert readers
    for job in (data, *readers):
        job["outputs"][0]["identity"] = "0" * 64
    (line,) = changed_identities(before, now)
    assert line.startswith(f"{data['title']} ({data['outputs'][0]['folder']}): ")
    assert line.endswith(f" -> {'0' * 64}")


@pytest.mark.parametrize("name", NAMES)
def test_every_step_of_a_plan_is_the_same_after_json(name: str, folders: Path) -> None:
    matrix, variables = located(name, folders)
    for job in make_plan(matrix, output_dir=folders / "runs" / name, variables=variables).jobs.values():
        step = Step.model_validate(json.loads(json.dumps(job.step.model_dump(mode="json"))))
        assert (type(step), step.id, step.title) == (type(job.step), job.id, job.title)
        assert [(o.folder, o.fingerprint.hash) for o in step.outputs] == [
            (o.folder, o.fingerprint.hash) for o in job.step.outputs
        ]
        # What is read by reference is known as folders alone.
        known = {made for need in step.needs for made in (output.made for output in need.outputs)} | set(referred(step))
        assert known == {output.made for need in job.step.needs for output in need.outputs}
