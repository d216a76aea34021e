"""Leases with real processes that are killed and suspended, and clocks that are wrong."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dskd.errors import InputError
from dskd.io import write_atomic
from harness.runs.leases import SECONDS, Lease, lease_seconds
from harness.runs.store import Store
from helpers.paths import PYTHONPATH

MACHINES = ("here", "here", "here", "here", "a", "b", "c", "d")


class Lost(RuntimeError):
    """Raised in place of the end of the process."""


def lose(reason: str) -> None:
    raise Lost(reason)


def lease(folder: Path, seconds: float = 1.0) -> Lease:
    return Lease(folder / "job", lose, seconds=seconds)


@contextmanager
def held(folder: Path, seconds: float = 1.0) -> Iterator[Lease]:
    mine = lease(folder, seconds)
    mine.acquire()
    yield mine
    mine.release()


def foreign(folder: Path, number: int = 1, *, beat: int = 1, **other: object) -> Path:
    """A lease of a process on another machine, whose clock is a day ahead."""
    path = folder / "job" / str(number)
    path.parent.mkdir(exist_ok=True)
    record = {"owner": "other", "host": "far", "pid": 1, "boot": "far", "seconds": 1.0, "beat": beat, "state": "held"}
    path.write_text(json.dumps({**record, **other}))
    os.utime(path, (time.time() + 86400,) * 2)
    return path


def start(folder: Path, number: int) -> subprocess.Popen[bytes]:
    hours = (0, 5, -7, 300)[number % 4]
    command = [
        "-m",
        "helpers.lease_contender",
        str(folder / "job"),
        str(folder / "journal"),
        MACHINES[number],
        str(hours),
    ]
    return subprocess.Popen(
        [sys.executable, *command], env={**os.environ, "PYTHONPATH": PYTHONPATH}, start_new_session=True
    )


def send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)


@pytest.mark.slow  # eight processes
def test_of_eight_that_are_killed_and_suspended_one_holds_it_and_none_writes_after_it_was_taken_over(
    tmp_path: Path,
) -> None:
    chance = random.Random(18)
    processes = [start(tmp_path, number) for number in range(8)]
    asleep: dict[int, float] = {}
    suspended = 0
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            time.sleep(0.1 * chance.random())
            number = chance.randrange(8)
            if number not in asleep and chance.random() < 0.25:
                send(processes[number], signal.SIGKILL)
            elif number not in asleep and chance.random() < 0.3:
                send(processes[number], signal.SIGSTOP)
                asleep[number] = time.monotonic() + 4 * chance.random()
                suspended += 1
            for sleeper in [each for each, until in asleep.items() if until < time.monotonic()]:
                send(processes[sleeper], signal.SIGCONT)
                del asleep[sleeper]
            for each, process in enumerate(processes):
                if process.poll() is not None:
                    asleep.pop(each, None)
                    processes[each] = start(tmp_path, each)
        for process in processes:
            send(process, signal.SIGCONT)
        time.sleep(3)  # and it goes on
        length = len((tmp_path / "journal").read_text())
        time.sleep(3)
        lines = (tmp_path / "journal").read_text()
    finally:
        for process in processes:
            send(process, signal.SIGKILL)
            process.wait()
    assert len(lines) > length
    assert suspended > 5
    words = [line.split() for line in lines.splitlines()]
    order = list(dict.fromkeys(turn for turn, _ in words))
    assert [turn for turn, _ in words] == sorted((turn for turn, _ in words), key=order.index)  # no turn comes back
    ends = [turn for turn, word in words if word == "end"]
    assert len(ends) == len(set(ends)) > 5
    assert len(order) > len(ends)  # some were killed, or lost it


def test_a_lease_that_was_given_back_is_free_at_once(tmp_path: Path) -> None:
    with held(tmp_path, 60):
        pass
    with held(tmp_path, 60) as second:
        second.check()
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == ["1", "2"]


def test_a_silent_holder_on_another_machine_is_dead_after_its_seconds_by_our_clock(tmp_path: Path) -> None:
    foreign(tmp_path)
    begun, told = time.monotonic(), []
    mine = lease(tmp_path, 600)  # what the other has promised counts
    assert mine.acquire(told.append) == 1
    assert time.monotonic() - begun >= 1
    assert set(told) == {"process 1 on far"}
    mine.release()


def test_a_holder_that_beats_is_alive_whatever_its_clock_says(tmp_path: Path) -> None:
    foreign(tmp_path)
    mine = lease(tmp_path)
    taken = threading.Event()
    waiter = threading.Thread(target=lambda: (mine.acquire(), taken.set()), daemon=True)
    waiter.start()
    for beat in range(30):
        foreign(tmp_path, beat=beat)
        time.sleep(0.1)
    assert not taken.is_set()
    foreign(tmp_path, state="released")
    assert taken.wait(1)
    waiter.join()
    mine.release()


def test_a_process_that_was_killed_on_this_machine_is_found_out_sooner(tmp_path: Path) -> None:
    code = f"from helpers.lease_contender import *\nleases.Lease(Path({str(tmp_path / 'job')!r}), print, seconds=5).acquire()"
    subprocess.run(
        [sys.executable, "-c", f"{code}\nos._exit(9)"], env={**os.environ, "PYTHONPATH": PYTHONPATH}, check=False
    )
    begun = time.monotonic()
    mine = lease(tmp_path)
    assert mine.acquire() == 1
    assert 1 <= time.monotonic() - begun < 4
    mine.release()


def test_many_that_find_it_stale_at_once_take_it_one_after_the_other(tmp_path: Path) -> None:
    foreign(tmp_path)
    inside, most, lock = 0, 0, threading.Lock()

    def contend() -> None:
        nonlocal inside, most
        mine = lease(tmp_path)
        mine.acquire()
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.02)
        with lock:
            inside -= 1
        mine.release()

    threads = [threading.Thread(target=contend) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1
    assert sorted(int(path.name) for path in (tmp_path / "job").iterdir()) == list(range(1, 14))


def test_who_looked_at_an_old_number_takes_nothing_away_from_the_one_that_came_after(tmp_path: Path) -> None:
    foreign(tmp_path, state="released")
    slow = lease(tmp_path)
    with held(tmp_path) as winner:
        assert not slow._create(2)  # as if it had been suspended after it found number 1 given back
        winner.check()


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("taken", "lost its lease to process 1 on far"),
        ("removed", "the file of it was removed"),
        ("replaced", "the file of it is another's"),
        ("late", "this process stood still, or could not write, for 21 s"),
    ],
)
def test_what_has_lost_its_lease_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, reason: str
) -> None:
    (tmp_path / "result").write_text("before")
    mine = Store(tmp_path, shared_disk=True, on_loss=lose).lock("job")
    mine.acquire()
    number = tmp_path / ".harness/leases/job/1"
    if how == "taken":
        foreign(number.parent.parent, 2)
    elif how == "removed":
        number.unlink()
    elif how == "replaced":
        number.rename(tmp_path / "old")
        number.write_bytes((tmp_path / "old").read_bytes())
    else:
        monkeypatch.setattr("harness.runs.leases._since_boot", lambda: time.clock_gettime(time.CLOCK_BOOTTIME) + 21)
    with pytest.raises(Lost, match=reason):
        write_atomic(tmp_path / "result", "after")
    assert (tmp_path / "result").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "old") == [".harness", "result"]
    with pytest.raises(Lost):
        mine.release()


def test_nobody_checks_once_it_is_given_back(tmp_path: Path) -> None:
    mine = Store(tmp_path, shared_disk=True, on_loss=lose).lock("job")
    with mine:
        write_atomic(tmp_path / "first", "")
    foreign(tmp_path / ".harness/leases", 2)
    write_atomic(tmp_path / "second", "")


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "0"])
def test_a_time_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(SECONDS, text)
    with pytest.raises(InputError, match=f"{SECONDS}={text}: not a time; fix: give seconds"):
        lease_seconds()
