"""How programs end, what each limit does, and what they see."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness.sandbox import Limits, Program, execution
from harness.sandbox.execution import run
from harness.sandbox.isolation import LIMITS_ONLY, Isolation

QUICK = Limits(seconds=0.5)
PATIENT = Limits(seconds=20.0)


@pytest.fixture(params=["chosen", "limits"])
def either(request: pytest.FixtureRequest) -> Isolation:
    """What isolates here, and limits alone: programs end alike in both."""
    if request.param == "limits":
        return LIMITS_ONLY
    isolation: Isolation = request.getfixturevalue("isolation")
    return isolation


@pytest.mark.parametrize(
    ("source", "outcome", "detail"),
    [
        ("assert sum([1, 2]) == 3", "passed", ""),
        ("assert sum([1, 2]) == 4, 'three'", "failed", "AssertionError: three"),
        ("raise ValueError('no\\nnumber')", "exception", "ValueError: no number"),
        ("def f(n):\n    return f(n)\nf(1)", "exception", "RecursionError"),
        ("def f(:\n  pass", "syntax_error", "SyntaxError"),
        ("raise SyntaxError('made by hand')", "exception", "SyntaxError"),
        ("x = '\0'", "syntax_error", ""),
        ("x = '\ud800'", "syntax_error", ""),
        ("import ctypes\nctypes.string_at(0)", "killed", "SIGSEGV"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "killed", "SIGKILL"),
        ("data = bytearray(10 << 30)", "memory", "MemoryError"),
        ("import numpy", "exception", "ModuleNotFoundError"),
        ("class E(Exception):\n    def __str__(self):\n        raise SystemExit\nraise E", "exception", "E:"),
        ("import os\nos._exit(0)", "failed", "left before the end of its tests (exit code 0)"),
        ("raise SystemExit(0)", "failed", "SystemExit: 0"),
    ],
)
def test_every_end_has_its_name(source: str, outcome: str, detail: str, either: Isolation) -> None:
    ended = run(Program(source), either, PATIENT)
    assert ended.outcome == outcome, ended
    assert ended.detail.startswith(detail)


@pytest.mark.parametrize("source", ["while True: pass", "import time\ntime.sleep(60)"])
def test_an_endless_program_is_ended_when_its_time_is_over(source: str, either: Isolation) -> None:
    ended = run(Program(source), either, QUICK)
    assert ended.outcome == "timeout"
    assert ended.seconds >= QUICK.seconds


def test_a_program_that_sleeps_was_not_starved(isolation: Isolation) -> None:
    assert not run(Program("import time\ntime.sleep(60)"), isolation, QUICK).starved


def test_processor_time_is_limited_for_what_the_wall_clock_allows(isolation: Isolation) -> None:
    source = """
import resource
assert resource.getrlimit(resource.RLIMIT_CPU) == (8, 8)
"""
    assert run(Program(source), isolation, Limits(seconds=7.0)).outcome == "passed"


def test_a_file_cannot_grow_without_end(isolation: Isolation) -> None:
    source = "open('file', 'wb').write(bytes(2 << 20))"
    assert run(Program(source), isolation, Limits(seconds=20, file=4 << 20)).outcome == "passed"
    assert run(Program(source), isolation, Limits(seconds=20, file=1 << 20)).outcome == "exception"


def test_all_files_together_have_a_limit(isolation: Isolation) -> None:
    source = "for k in range(8): open(str(k), 'wb').write(bytes(1 << 20))"
    assert run(Program(source), isolation, Limits(seconds=20, scratch=9 << 20)).outcome == "passed"
    assert "No space left" in run(Program(source), isolation, Limits(seconds=20, scratch=4 << 20)).detail


def test_open_files_are_limited(isolation: Isolation) -> None:
    source = "kept = [open('/dev/null') for _ in range(60)]"
    assert run(Program(source), isolation, Limits(seconds=20, open_files=80)).outcome == "passed"
    assert "Too many open files" in run(Program(source), isolation, Limits(seconds=20, open_files=40)).detail


def test_processes_and_threads_are_limited(isolation: Isolation) -> None:
    source = "import threading, time\nfor _ in range(12):\n    threading.Thread(target=time.sleep, args=(30,)).start()"
    assert run(Program(source), isolation, Limits(seconds=20, processes=16)).outcome == "passed"
    assert "can't start new thread" in run(Program(source), isolation, Limits(seconds=20, processes=8)).detail


def test_memory_is_limited_for_each_process_and_for_all_together(isolation: Isolation) -> None:
    one = "data = bytearray(300 << 20)"
    assert run(Program(one), isolation, Limits(seconds=20, memory=1 << 30)).outcome == "passed"
    assert run(Program(one), isolation, Limits(seconds=20, memory=200 << 20)).outcome == "memory"
    many = """
import os, time
for _ in range(4):
    if os.fork() == 0:
        data = os.urandom(1 << 20) * 100
        time.sleep(60)
time.sleep(60)
"""
    ended = run(Program(many), isolation, Limits(seconds=20, memory=300 << 20))
    assert (ended.outcome, ended.detail) == ("memory", "all its processes together")


def test_the_environment_of_the_harness_is_not_visible(monkeypatch: pytest.MonkeyPatch, either: Isolation) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:password@proxy")
    source = "import os\nassert sorted(os.environ) == ['HOME', 'LANG', 'PATH', 'PYTHONHASHSEED', 'TMPDIR'], sorted(os.environ)"
    assert run(Program(source), either, PATIENT).outcome == "passed"


def test_what_a_program_sees_of_the_machine(isolation: Isolation, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    source = f"""
import os, pathlib
outside = ["/root/.ssh", "/home", "/etc/passwd", "/etc/hostname", "/sys", "/var", "/run"]
for path in [{str(tmp_path / "secret")!r}, *outside]:
    assert not os.path.exists(path), path
assert not os.access("/dev/shm", os.W_OK)
pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
assert len(pids) == 3 and max(pids) < 10, pids
assert os.getuid() != 0 and "CapEff:\\t0000000000000000" in pathlib.Path("/proc/self/status").read_text()
assert [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]] == ["lo"]
"""
    ended = run(Program(source), isolation, PATIENT)
    assert ended.outcome == "passed", ended


def test_installed_packages_and_their_data_are_out_of_sight(isolation: Isolation) -> None:
    source = """
import os, sys
found = [os.path.join(folder, name) for folder, _, names in os.walk(os.path.dirname(os.__file__)) for name in names]
assert found and not [path for path in found if "-packages" in path]
"""
    assert run(Program(source), isolation, PATIENT).outcome == "passed"


def test_standard_input_is_empty_and_output_goes_nowhere(either: Isolation) -> None:
    source = "import sys\nassert sys.stdin.read() == ''\nprint('x' * 10_000_000)\nsys.stderr.write('x' * 10_000_000)"
    assert run(Program(source), either, PATIENT).outcome == "passed"


def test_home_and_working_folder_are_one_and_empty_for_each_program(either: Isolation) -> None:
    source = """
import os, tempfile
assert os.path.realpath(os.getcwd()) == os.path.realpath(os.path.expanduser("~")) == os.path.realpath(tempfile.gettempdir())
assert os.listdir() == []
open("file", "w").write("x")
"""
    for _ in range(2):
        assert run(Program(source), either, PATIENT).outcome == "passed"


def test_the_folder_of_limits_alone_is_gone_afterwards(tmp_path: Path) -> None:
    note = tmp_path / "note"
    source = f"import os\nopen({str(note)!r}, 'w').write(os.getcwd())"
    assert run(Program(source), LIMITS_ONLY, PATIENT).outcome == "passed"
    assert not Path(note.read_text()).exists()


def test_random_numbers_and_the_order_of_sets_are_the_same_in_every_run(isolation: Isolation) -> None:
    source = "import random\nraise ValueError(random.random(), list(set('abcdefgh')))"
    first, second = (run(Program(source), isolation, PATIENT) for _ in range(2))
    assert first.detail == second.detail != ""


def test_an_interpreter_that_does_not_start_is_the_harness_s_error_and_never_a_verdict(
    isolation: Isolation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("harness.sandbox.isolation.limits_only.interpreter", lambda: str(tmp_path / "no-python"))
    assert run(Program("assert True"), LIMITS_ONLY, PATIENT).outcome == "harness_error"


def test_a_supervisor_that_does_not_start_is_the_harness_s_error_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("harness.sandbox.isolation.limits_only.INSIDE", tmp_path)
    ended = run(Program("assert True"), LIMITS_ONLY, PATIENT)
    assert ended.outcome == "harness_error"
    assert "did not start" in ended.detail
    assert "No such file" in ended.detail


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (b"started\n", "killed"),
        (
            b'started\n{"nonce": "guessed", "outcome": "passed", "detail": "", "seconds": 0, "starved": false}\n',
            "killed",
        ),
        (b'started\n{"nonce": "right", "outcome": "passed", "detail": "", "seconds": 0, "starved": false}\n', "passed"),
        (b'{"nonce": "right", "outcome": "passed", "detail": "", "seconds": 0, "starved": false}\n', "harness_error"),
    ],
)
def test_a_verdict_without_the_nonce_is_none(said: bytes, outcome: str) -> None:
    talk = execution._Talk.__new__(execution._Talk)
    talk.output, talk.complained = said, b""
    assert execution._judge(talk, "right", 0, "end").outcome == outcome
    if outcome == "passed":
        assert execution._judge(talk, "right", 1, "end").outcome == "killed"


def test_the_programs_of_a_killed_harness_end(isolation: Isolation) -> None:
    marker = "marks-what-a-killed-harness-left"
    source = f"""
from harness.sandbox import Limits, Program, sandbox
from harness.sandbox.execution import run
isolation = sandbox().isolation
print("ready", flush=True)
source = "import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'while True: pass', {marker!r}])"
run(Program(source), isolation, Limits(seconds=500))
"""
    harness = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)
    assert harness.stdout is not None
    assert harness.stdout.readline() == b"ready\n"
    _wait(lambda: len(_marked(marker)) == 1)
    harness.kill()
    harness.wait()
    harness.stdout.close()
    _wait(lambda: not _marked(marker))


def _marked(marker: str) -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [""])[-1] == marker]


def _wait(condition: object) -> None:
    deadline = time.monotonic() + 15
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)
