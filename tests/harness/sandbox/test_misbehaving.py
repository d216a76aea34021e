"""Programs that misbehave, a file each: all are contained, labelled, and none of them passes.

The first line of a file names the outcomes that it may come to.
"""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pytest

from harness.sandbox import Limits, Program
from harness.sandbox.execution import run
from harness.sandbox.isolation import Isolation

PROGRAMS = sorted((Path(__file__).parent / "misbehaving").glob("*.py"))
LIMITS = Limits(seconds=1.0)
# TESTMARK is what one of the programs looks for in its memory.
TESTS = "TESTMARK = 1\nassert add(1, 2) == 3 and add(2, 2) == 4"
MARKER = "marks-the-daemon-of-the-test"


def test_the_tests_pass_what_is_right(isolation: Isolation) -> None:
    right = Program("def add(a, b):\n    return a + b", TESTS, ("add",))
    assert run(right, isolation, LIMITS).outcome == "passed"


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_it_is_contained_and_labelled(path: Path, isolation: Isolation, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        source = path.read_text()
        expected = source.partition("\n")[0].removeprefix("# outcome: ").split()
        for name, value in (("OUTSIDE", outside), ("PORT", server.getsockname()[1]), ("MARKER", MARKER)):
            source = source.replace(name, str(value))
        execution = run(Program(source, TESTS, ("add",)), isolation, LIMITS)
        assert execution.outcome in expected, execution
        with pytest.raises(BlockingIOError):  # nobody called
            server.accept()
    assert [(file.name, file.read_text()) for file in outside.iterdir()] == [("kept", "kept")]
    assert not [p.pid for p in psutil.process_iter(["cmdline"]) if MARKER in (p.info["cmdline"] or ())]
