"""Programs that misbehave, and that none of them passes, hangs the harness or sees its environment."""

import time
from pathlib import Path

import psutil
import pytest

from dskd.errors import InputError
from harness import code_execution
from harness.code_execution import MEMORY_BYTES, check_runner, run_program, run_programs

LEAVES_EARLY = {
    "os._exit(0)": "import os\nos._exit(0)",
    "SystemExit": "raise SystemExit(0)",
    "sys.exit in the candidate": "import sys\ndef f():\n    sys.exit()\nassert f() == 1",
    "an exit function that writes": "import atexit, os\natexit.register(os.write, 1, b'ok')\nraise SystemExit",
    "closing every descriptor": "import os\nos.closerange(0, 64)",
    "guessing the verdict": """
import os
for descriptor in range(3, 20):
    try:
        os.write(descriptor, b'passed\\n')
    except OSError:
        pass
os._exit(0)
""",
}


@pytest.mark.parametrize("source", LEAVES_EARLY.values(), ids=LEAVES_EARLY.keys())
def test_leaving_before_the_end_never_passes(source):
    assert run_program(source).outcome == "failed"


@pytest.mark.parametrize(
    ("source", "outcome", "detail"),
    [
        ("assert sum([1, 2]) == 3", "passed", ""),
        ("assert sum([1, 2]) == 4, 'three'", "failed", "AssertionError: three"),
        ("raise ValueError('no\\nnumber')", "exception", "ValueError: no number"),
        ("def f(n):\n    return f(n)\nf(1)", "exception", "RecursionError"),
        ("def f(:\n  pass", "syntax_error", "SyntaxError"),
        ("x = '\0'", "syntax_error", ""),
        ("x = '\ud800'", "syntax_error", ""),
        ("import ctypes\nctypes.string_at(0)", "killed", "SIGSEGV"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "killed", "SIGKILL"),
        (f"data = bytearray({10 * MEMORY_BYTES})", "memory", "MemoryError"),
        ("import numpy", "exception", "ModuleNotFoundError"),
        ("class E(Exception):\n    def __str__(self):\n        raise SystemExit\nraise E", "exception", "E:"),
    ],
)
def test_every_end_has_its_name(source, outcome, detail):
    execution = run_program(source)
    assert execution.outcome == outcome
    assert execution.detail.startswith(detail)


ENDLESS = {
    "loop": "while True: pass",
    "output": "while True: print('x' * 100000, flush=True)",
    "swallows BaseException": "while True:\n    try:\n        while True: pass\n    except BaseException:\n        pass",
    "ignores signals": """
import signal
signal.alarm(0)
for number in (1, 2, 15):
    signal.signal(number, signal.SIG_IGN)
while True: pass
""",
    "says too much in the verdict": """
import os
while True:
    for descriptor in range(3, 10):
        try:
            os.write(descriptor, b'x' * 4096)
        except OSError:
            pass
""",
    "closes its descriptors": "import os\nos.closerange(0, 64)\nwhile True: pass",
}


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS.keys())
def test_an_endless_program_is_a_timeout(source):
    before = time.monotonic()
    assert run_program(source, timeout=0.5).outcome == "timeout"
    assert time.monotonic() - before < 5


def test_threads_left_alive_do_not_keep_a_program_from_its_end():
    source = (
        "import threading\nfor _ in range(4):\n    threading.Thread(target=lambda: exec('while True: pass')).start()"
    )
    assert run_program(source).outcome in {
        "passed",
        "exception",
    }  # the latter where this user's programs get no threads


def test_reading_standard_input_finds_nothing():
    assert run_program("import sys\nassert sys.stdin.read() == ''").outcome == "passed"


def test_the_environment_of_the_harness_is_not_visible(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:password@proxy")
    source = "import os\nassert sorted(os.environ) == ['HOME', 'LANG', 'PATH', 'PYTHONHASHSEED', 'TMPDIR'], sorted(os.environ)"
    assert run_program(source).outcome == "passed"


def test_home_and_working_folder_are_private_and_gone_afterwards(tmp_path):
    note = tmp_path / "note"
    source = f"""
import os, tempfile
assert os.path.realpath(os.getcwd()) == os.path.realpath(os.path.expanduser("~")) == os.path.realpath(tempfile.gettempdir())
open("file", "w").write("x")
open({str(note)!r}, "w").write(os.getcwd())
"""
    assert run_program(source).outcome == "passed"
    assert not Path(note.read_text()).exists()


def test_children_of_a_program_do_not_outlive_it(tmp_path):
    note = tmp_path / "pid"
    source = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
open({str(note)!r}, "w").write(str(child.pid))
"""
    if run_program(source).outcome != "passed":
        pytest.skip("a program may not start another one for this user")
    pid = int(note.read_text())
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child is still alive"
        time.sleep(0.01)


def test_a_file_cannot_grow_without_end():
    source = "with open('file', 'wb') as file:\n    for _ in range(64):\n        file.write(bytes(1 << 20))"
    assert run_program(source).outcome == "exception"


def test_random_numbers_and_the_order_of_sets_are_the_same_in_every_run(tmp_path):
    notes = [tmp_path / name for name in "ab"]
    for note in notes:
        source = f"import random\nopen({str(note)!r}, 'w').write(repr([random.random(), list(set('abcdefgh'))]))"
        assert run_program(source).outcome == "passed"
    assert notes[0].read_text() == notes[1].read_text()


def test_many_programs_keep_their_order_and_tell_their_progress():
    done = []
    sources = ["assert True", "assert False", "1 / 0", "assert True"]
    executions = run_programs(sources, advance=lambda: done.append(1))
    assert [execution.outcome for execution in executions] == ["passed", "failed", "exception", "passed"]
    assert len(done) == 4


def test_a_program_that_did_not_get_the_processor_is_run_once_more(tmp_path):
    note = tmp_path / "runs"
    # Sleeps on its first run, as if the machine had been busy; on the second it is quick.
    source = f"""
import os, time
first = not os.path.exists({str(note)!r})
open({str(note)!r}, "a").write("x")
if first:
    time.sleep(60)
"""
    assert run_programs([source], timeout=0.7)[0].outcome == "passed"
    assert note.read_text() == "xx"


def test_a_program_that_used_its_processor_time_is_not_run_again(tmp_path, monkeypatch):
    # However busy the machine that runs this test is, the program is taken to have had the processor.
    monkeypatch.setattr(code_execution, "_processor_seconds", lambda pid: 10.0)
    note = tmp_path / "runs"
    source = f"open({str(note)!r}, 'a').write('x')\nwhile True: pass"
    assert run_programs([source], timeout=0.7)[0].outcome == "timeout"
    assert note.read_text() == "x"


def test_an_interpreter_that_does_not_start_is_the_harness_s_error_and_never_a_verdict(monkeypatch, tmp_path):
    monkeypatch.setattr(code_execution.sys, "executable", str(tmp_path / "no-python"))
    assert run_program("assert True").outcome == "harness_error"


def test_a_runner_that_does_not_start_is_the_harness_s_error(monkeypatch, tmp_path):
    monkeypatch.setattr(code_execution, "RUNNER", tmp_path / "no-runner.py")
    execution = run_program("assert True")
    assert execution.outcome == "harness_error"
    assert "did not start" in execution.detail


def test_nothing_is_scored_where_a_right_program_does_not_pass(monkeypatch, tmp_path):
    check_runner.cache_clear()
    monkeypatch.setattr(code_execution, "RUNNER", tmp_path / "no-runner.py")
    with pytest.raises(InputError, match="generated code cannot be run here"):
        run_programs(["assert True"])
    monkeypatch.undo()
    check_runner()
