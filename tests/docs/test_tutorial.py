"""The tutorial, word for word: every block of commands, in its order, in an empty folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import ROOT

PAGE = ROOT / "docs" / "tutorial.md"


def _blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_every_command_works_and_the_last_one_finds_nothing_worse(tmp_path: Path) -> None:
    # `harness` as it is installed, before anything else on the path.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("HARNESS_DATA", None)
    for block in _blocks():
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs/mine/cells").rglob("eval/*/result.json")]
    # Three methods and two seeds, and the teacher, on two tasks.
    assert len(records) == (3 * 2 + 1) * 2
    assert all(record["status"] == "done" for record in records)
    assert (tmp_path / "table.tex").read_text().count("\\toprule") >= 1
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_it_has_a_block_for_every_step() -> None:
    assert len(_blocks()) >= 8
