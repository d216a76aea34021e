"""The local executor with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.executors.local import Executor
from harness.runs.store import Store
from harness.scheduling.executor import Settings
from harness.scheduling.outcome import Outcome
from harness.scheduling.runner import Runner
from harness.steps.base import Step
from helpers.executor_runs import Recorder, fake, planned
from helpers.paths import PYTHONPATH
from helpers.shadows import write_shadows


@pytest.fixture(autouse=True)
def fake_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def execute(
    root: Path, *steps: Step, jobs: int = 2, fail_fast: bool = False, tries: int = 1
) -> tuple[dict[str, Outcome], Recorder]:
    recorder = Recorder()
    runner = Runner(Executor(Settings(root)), recorder, jobs=jobs, fail_fast=fail_fast, tries=tries, delay=0.1)
    return runner.run(planned(root, *steps)), recorder


def journal(root: Path) -> list[str]:
    path = root / "journal"
    return path.read_text().split() if path.exists() else []


def wait_for(path: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def test_a_job_runs_after_what_it_needs_and_leaves_manifest_log_and_no_marker(tmp_path: Path) -> None:
    first = fake(tmp_path, "first")
    outcomes, recorder = execute(tmp_path, fake(tmp_path, "second", after=(first,)))
    assert {key: outcome.status for key, outcome in outcomes.items()} == {"first": "done", "second": "done"}
    assert recorder.events.index(("done", "first")) < recorder.events.index(("start", "second"))
    assert ("progress", "second") in recorder.events
    folder = tmp_path / "cells" / "second"
    assert sorted(path.name for path in folder.iterdir()) == ["log.txt", "manifest.json", "product"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["state"] == "done"
    assert manifest["report"]["answer"] == 42
    assert manifest["report"]["cost"]["peak_memory"] > 2**20
    assert "doing ok" in (folder / "log.txt").read_text()


def test_a_job_imports_nothing_from_the_working_folder_and_may_print_any_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_shadows(tmp_path / "cwd"))
    monkeypatch.setenv("LC_ALL", "en_US.ISO-8859-1")
    monkeypatch.setenv("PYTHONIOENCODING", "")
    outcomes, _ = execute(tmp_path, fake(tmp_path, "first", "print café – 東京"))
    log = (tmp_path / "cells/first/log.txt").read_text(encoding="utf-8")
    assert outcomes["first"].status == "done", log
    assert "café – 東京" in log


def test_a_failing_job_does_not_stop_the_others_and_what_needs_it_is_not_run(tmp_path: Path) -> None:
    bad = fake(tmp_path, "bad", "fail")
    child = fake(tmp_path, "child", after=(bad,))
    outcomes, _ = execute(tmp_path, fake(tmp_path, "grandchild", after=(child,)), fake(tmp_path, "other"))
    assert outcomes["bad"].status == "failed"
    assert outcomes["bad"].reason == "RuntimeError: the reason"
    assert outcomes["other"].status == "done"
    for name in ("child", "grandchild"):
        assert outcomes[name] == Outcome("not_run", "needs 'job bad', which failed")
    assert sorted(journal(tmp_path)) == ["bad", "other"]
    assert "Traceback" in (tmp_path / "cells/bad/log.txt").read_text()
    state, manifest = Store(tmp_path).output("cells/bad").state()
    assert state == "failed"
    assert manifest is not None
    assert manifest.error == "RuntimeError: the reason"


def test_a_users_mistake_found_by_a_job_is_told_as_it_stands(tmp_path: Path) -> None:
    outcomes, _ = execute(tmp_path, fake(tmp_path, "bad", "input error"))
    assert outcomes["bad"].reason == "data.jsonl:3: is broken; mend it"


def test_a_training_that_failed_is_told_with_its_hint_and_without_the_name_of_an_exception(tmp_path: Path) -> None:
    outcomes, _ = execute(tmp_path, fake(tmp_path, "bad", "training failed"))
    assert outcomes["bad"].reason == "the loss is nan at step 3; fix: lower learning_rate"


def test_memory_that_runs_out_beside_a_training_gets_a_hint(tmp_path: Path) -> None:
    outcomes, _ = execute(tmp_path, fake(tmp_path, "bad", "take all memory"), fake(tmp_path, "other"))
    assert outcomes["bad"].reason.startswith("out of memory; fix: fewer jobs at once (--jobs 1)")
    assert outcomes["other"].status == "done"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte; where nobody may mount one, the test is skipped."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_the_reason_and_the_job_is_done_once_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    step = fake(small_disk, "big", "fill the disk", journal=tmp_path / "journal")
    outcomes, _ = execute(small_disk, step)
    assert outcomes["big"].status == "failed"
    reason, fix = outcomes["big"].reason.split("; fix: ")
    assert reason.startswith("the disk is full")
    assert fix.startswith("free some space, or give --output-dir")
    folder = small_disk / "cells/big"
    (folder / "filling").unlink()
    (folder / "part").write_text("there is room")
    outcomes, _ = execute(small_disk, step)
    assert outcomes["big"].status == "done"


def test_a_disk_without_room_for_a_job_to_start_fails_that_job_in_one_line(small_disk: Path, tmp_path: Path) -> None:
    step = fake(small_disk, "late", journal=tmp_path / "journal")
    (small_disk / "taken").write_bytes(b"x" * 2**20)
    outcomes, _ = execute(small_disk, step)
    assert outcomes["late"].status == "failed"
    assert "the disk is full" in outcomes["late"].reason
    assert "\n" not in outcomes["late"].reason
    assert not (tmp_path / "journal").exists()


def test_fail_fast_starts_nothing_more(tmp_path: Path) -> None:
    steps = [fake(tmp_path, "bad", "fail"), *(fake(tmp_path, f"later{k}") for k in range(3))]
    outcomes, _ = execute(tmp_path, *steps, jobs=1, fail_fast=True)
    assert journal(tmp_path) == ["bad"]
    assert all(outcomes[f"later{k}"].status == "not_run" for k in range(3))


def test_a_killed_job_is_reported_with_its_signal_and_goes_on_from_what_it_left(tmp_path: Path) -> None:
    step = fake(tmp_path, "fragile", "kill itself once")
    outcomes, _ = execute(tmp_path, step)
    assert outcomes["fragile"].status == "failed"
    reason, fix, log = outcomes["fragile"].reason.split("; ")
    assert reason == "ended by SIGKILL, probably because memory ran out"
    for knob in ("--jobs 1", "batch_size", "batch_tokens", "gradient_checkpointing", "chunk_tokens"):
        assert knob in fix
    assert log.startswith("last line of its log: doing")
    folder = tmp_path / "cells" / "fragile"
    assert (folder / "INCOMPLETE").exists()
    assert Store(tmp_path).output("cells/fragile").state()[0] == "interrupted"
    outcomes, _ = execute(tmp_path, step)
    assert outcomes["fragile"].status == "done"
    assert (folder / "product").read_text() == "kept"
    assert not (folder / "INCOMPLETE").exists()


def test_unfinished_work_with_other_settings_is_thrown_away(tmp_path: Path) -> None:
    execute(tmp_path, fake(tmp_path, "fragile", "kill itself once"))
    outcomes, _ = execute(tmp_path, fake(tmp_path, "fragile", "ok"))
    assert outcomes["fragile"].status == "done"
    assert (tmp_path / "cells/fragile/product").read_text() == "made"


def test_what_is_done_is_found_done_by_the_job_itself(tmp_path: Path) -> None:
    execute(tmp_path, fake(tmp_path, "once"))
    outcomes, _ = execute(tmp_path, fake(tmp_path, "once"))
    assert outcomes["once"].status == "done"
    assert journal(tmp_path) == ["once"]


def test_files_that_no_job_made_are_never_removed(tmp_path: Path) -> None:
    mine = tmp_path / "cells" / "taken" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    outcomes, _ = execute(tmp_path, fake(tmp_path, "taken"))
    assert outcomes["taken"].status == "failed"
    assert "thesis.txt" in outcomes["taken"].reason
    assert mine.read_text() == "mine"


def test_a_job_has_the_threads_that_it_asks_for_however_many_run_unless_the_user_has_set_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(tmp_path, fake(tmp_path, "usual"), jobs=4)
    assert "OMP_NUM_THREADS=1" in (tmp_path / "cells/usual/log.txt").read_text()
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    execute(tmp_path, fake(tmp_path, "empty"), jobs=1)
    assert "OMP_NUM_THREADS=1" in (tmp_path / "cells/empty/log.txt").read_text()
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    execute(tmp_path, fake(tmp_path, "own"), jobs=4)
    assert "OMP_NUM_THREADS=5" in (tmp_path / "cells/own/log.txt").read_text()


RUN = """
from pathlib import Path
from helpers.executor_runs import Recorder, fake, planned
from harness.executors.local import Executor
from harness.scheduling.executor import Settings
from harness.scheduling.runner import Runner
root = Path({root!r})
long = fake(root, "long", "wait", until=root / "go")
jobs = planned(root, fake(root, "after", after=(long,)))
recorder = Recorder()
outcomes = Runner(Executor(Settings(root)), recorder, jobs=2).run(jobs)
print([outcome.status for outcome in outcomes.values()], ("waiting", "long") in recorder.events)
"""


def start_run(root: Path) -> subprocess.Popen[str]:
    """A run in a process of its own; its first job waits for the file `go`."""
    code = RUN.format(root=str(root))
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A suite that a shell started in the background ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def gone(pid: int, seconds: float = 15) -> bool:
    """Whether a process ends; one that nobody has waited for counts."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_ends_takes_its_jobs_with_it_and_the_next_one_finishes_them(
    tmp_path: Path, number: signal.Signals
) -> None:
    run = start_run(tmp_path)
    part = tmp_path / "cells/long/part"
    wait_for(part)
    run.send_signal(number)
    run.wait(20)
    assert gone(int(part.read_text()))
    assert (tmp_path / "cells/long/INCOMPLETE").exists()
    (tmp_path / "go").touch()
    again = start_run(tmp_path)
    stdout, stderr = again.communicate(timeout=60)
    assert stdout.strip() == "['done', 'done'] False", stderr
    assert journal(tmp_path) == ["long", "long", "after"]


def test_two_runs_at_once_do_each_job_once(tmp_path: Path) -> None:
    first = start_run(tmp_path)
    wait_for(tmp_path / "cells/long/part")
    second = start_run(tmp_path)
    log = tmp_path / "cells/long/log.txt"
    deadline = time.monotonic() + 30
    while "waiting: another run" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (tmp_path / "go").touch()
    results = [run.communicate(timeout=60) for run in (first, second)]
    assert results[0][0].strip() == "['done', 'done'] False", results[0][1]
    assert results[1][0].strip() == "['done', 'done'] True", results[1][1]
    assert sorted(journal(tmp_path)) == ["after", "long"]
