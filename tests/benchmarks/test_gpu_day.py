"""The GPU day: its parts run on a processor too, and none of them stops another."""

from __future__ import annotations

import json
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from helpers.paths import ROOT


@pytest.fixture(scope="module")
def gpu_day() -> ModuleType:
    """The script as a module."""
    spec = spec_from_file_location("gpu_day", ROOT / "tests" / "benchmarks" / "gpu_day.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["gpu_day"] = module
    spec.loader.exec_module(module)
    return module


def script(folder: Path, name: str, text: str) -> str:
    """A part's script, which is told `--json FILE`."""
    (folder / name).write_text(
        f"import sys, json, time\nfrom pathlib import Path\nresult = Path(sys.argv[-1])\n{text}\n"
    )
    return name


def test_a_part_that_fails_or_takes_too_long_stops_no_other(
    gpu_day: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_day, "HERE", tmp_path)
    monkeypatch.setattr(gpu_day, "_LEAST", 0.5)
    monkeypatch.setattr(gpu_day, "machine", lambda device: {"device": device})
    said = [
        gpu_day.Part("fails", [script(tmp_path, "a.py", "print('started')\nraise ValueError('no such kernel')")], 60),
        gpu_day.Part("hangs", [script(tmp_path, "b.py", "time.sleep(600)")], 1.5),
        gpu_day.Part("says nothing", [script(tmp_path, "c.py", "pass")], 60),
        gpu_day.Part("works", [script(tmp_path, "d.py", "result.write_text(json.dumps({'holds': True}))")], 60),
    ]
    monkeypatch.setattr(gpu_day, "parts", lambda device, tiny: said)
    output, started = tmp_path / "day.json", time.monotonic()
    assert gpu_day.main(["--device", "cpu", "--output", str(output)]) == 1
    fails, hangs, nothing, works = json.loads(output.read_text())["parts"]
    assert (fails["ok"], fails["error"]) == (False, "exit code 1: ValueError: no such kernel")
    assert "Traceback" in fails["printed"]
    assert (hangs["ok"], hangs["error"]) == (False, "ran out of its 2 s")
    assert (nothing["ok"], nothing["error"]) == (False, "exit code 0: it printed nothing")
    assert (works["ok"], works["result"]) == (True, {"holds": True})
    assert time.monotonic() - started < 60
    # What is left of the whole time is a limit, too.
    assert gpu_day.main(["--device", "cpu", "--output", str(output), "--minutes", "0"]) == 1
    assert {part["error"] for part in json.loads(output.read_text())["parts"]} == {"not run: no time is left"}


def test_tests_that_failed_are_named(gpu_day: Any, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n\ndef test_good() -> None:\n    pass\n\ndef test_bad() -> None:\n    assert 1 == 2, 'not so'\n\n"
        "def test_left_out() -> None:\n    pytest.skip('none here')\n"
    )
    done = gpu_day.run(
        gpu_day.Part("tests", [str(tmp_path / "test_it.py"), "--rootdir", str(tmp_path)], 60, pytest=True), 60
    )
    assert not done["ok"]
    found = done["result"]
    assert (found["tests"], found["failures"], found["skipped"]) == (3, 1, 1)
    (failed,) = found["failed"]
    assert "test_bad: AssertionError: not so" in failed


def test_every_script_of_a_part_is_there(gpu_day: Any) -> None:
    for tiny in (False, True):
        for part in gpu_day.parts("cuda", tiny=tiny):
            assert part.pytest or (gpu_day.HERE / part.words[0]).is_file()
    assert sum(part.seconds for part in gpu_day.parts("cuda", tiny=False)[:5]) < 8 * 60


@pytest.mark.slow
def test_all_parts_run_on_a_processor(gpu_day: Any, tmp_path: Path) -> None:
    output = tmp_path / "day.json"
    code = gpu_day.main(["--device", "cpu", "--tiny", "--minutes", "20", "--output", str(output)])
    day = json.loads(output.read_text())
    found = {part["name"]: part for part in day["parts"]}
    assert code == 0, [part.get("printed") for part in day["parts"] if not part["ok"]]
    assert day["machine"]["versions"]["torch"]
    assert day["machine"]["missing"] == []
    assert found["equal losses"]["result"]["value"]["difference"] == 0.0  # the same device twice
    steps = {row["method"]: row for row in found["steps"]["result"]["rows"]}
    assert set(steps) == {"sft", "kd", "dskd-v2", "dskd-v2-eta"}
    assert steps["dskd-v2"]["TFLOP"] > steps["kd"]["TFLOP"] > steps["sft"]["TFLOP"] > 0
    assert found["P1"]["result"]["value"]["loss_error"] <= 2e-2
    assert found["P5"]["result"]["value"]["teacher_calls"] == 0
    assert found["P13"]["result"]["dtype"] == "bfloat16"
    assert found["tests"]["result"] == {"tests": 1, "failures": 0, "errors": 0, "skipped": 1, "failed": []}
