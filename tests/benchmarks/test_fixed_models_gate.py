"""The check of fixed models on a simulated processor, with the code as it is and with defects planted: two minutes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import PYTHONPATH

SCRIPT = Path(__file__).with_name("fixed_models_gate.py")


@pytest.mark.slow
def test_another_processor_passes_and_planted_defects_are_caught_there() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--reruns", "1", "--settings", "SSE"],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 1 unchanged reruns pass" in done.stdout
    assert "6 of 6 planted defects are caught" in done.stdout
