"""The page on distances, word for word: its matrix, and its commands in their order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.results.distances import DistanceName, read_distances
from helpers.paths import ROOT

PAGE = ROOT / "docs" / "distances.md"


@pytest.mark.slow  # a run
def test_its_matrix_runs_and_its_commands_show_every_number_of_its_table(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    (matrix,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (commands,) = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "near.yaml").write_text(matrix)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shown = ""
    for command in commands.splitlines():
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=550,
            env={**os.environ, "PATH": path, "NO_COLOR": "1"},
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        shown += done.stdout
    assert "Distances from the teacher" in shown
    assert "Distances from the teacher" in (tmp_path / "report.html").read_text()
    records, problems = read_distances(tmp_path / "runs/near")
    assert (len(records), problems) == (3, [])
    named = set(re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| `.*?\|", text, re.MULTILINE))))
    assert set(DistanceName.__args__) <= named
    found = next(record for record in records if record.cell.method == "dskd-v2-eta")
    assert {name for each in found.texts.values() for name in each.values} == set(DistanceName.__args__)
    assert found.texts["own_answers"].space == "shared_vocabulary"


def test_the_call_from_python_is_one_that_there_is() -> None:
    from dskd.distances import Text, measure
    from dskd.teachers.options import TeacherSource

    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    called: list[object] = []
    given = {"measure": lambda *arguments: called.append(arguments)}
    lines = [line for line in code.splitlines() if not line.startswith("from dskd.distances")]
    exec("\n".join(lines), {"Text": Text, **given})
    assert isinstance(called[0][2], TeacherSource)  # type: ignore[index]
    assert callable(measure)
