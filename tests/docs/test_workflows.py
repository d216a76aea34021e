"""The workflows of this repository parse, and call targets of the Makefile that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from helpers.paths import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_it_parses_and_its_make_targets_exist(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    scripts = "\n".join(step["run"] for step in steps if "run" in step)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([\w-]+)", scripts):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    # Secrets and package indexes are settings of the repository, not text in it.
    assert not re.findall(r"secrets\.|https?://", path.read_text(encoding="utf-8"))


def test_pull_requests_run_lint_and_fast_tests_and_a_tag_builds() -> None:
    names = {path.stem: path.read_text(encoding="utf-8") for path in WORKFLOWS}
    assert names.keys() == {"ci", "nightly", "release"}
    assert "make lint" in names["ci"]
    assert "make test" in names["ci"]
    assert "make nightly" in names["nightly"]
    assert "hatchling build" in names["release"]
