"""The regression check with whole runs: minutes each."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("regression_gate.py")


@pytest.mark.slow
def test_a_rerun_passes_and_planted_defects_are_caught(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--output", str(tmp_path / "gate"), "--reruns", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 1 unchanged reruns pass" in done.stdout
    assert "3 of 3 planted defects are caught" in done.stdout
