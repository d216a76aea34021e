"""The event log: what it says, several writers, what a kill tears, and its size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.planning.plan import PlannedJob
from harness.scheduling.event_log import OLDER_EVENTS, EventLog, EventReader, events_file
from harness.scheduling.executor import Allocation, Attempt
from harness.scheduling.outcome import Outcome
from helpers.executor_runs import fake, planned

HOSTILE = 'two\nlines \x1b[31m <b> \ud800 "event": "progress"'


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def job(name: str = "a") -> PlannedJob:
    return planned(Path(), fake(Path(), name))[0]


def read(root: Path) -> list[dict[str, object]]:
    return list(EventReader(root).new())


def log(root: Path, run: str = "run1", **more: object) -> EventLog:
    return EventLog(root, run, "local", ["harness", "run"], **more)  # type: ignore[arg-type]


def test_a_run_is_told_from_its_opening_to_its_end(tmp_path: Path) -> None:
    writer, one = log(tmp_path), job()
    writer.opened([one])
    writer.started(Attempt(one, allocation=Allocation("node1", 2, (0, 3))))
    writer.said(one, {"event": "started", "host": "node1", "devices": "0,3"})
    writer.said(one, {"event": "metrics", "metrics": {"loss": 2.5}})
    writer.said(one, {"event": "progress", "stage": "training", "done": 1, "total": 4})
    writer.again(one, "killed", 2, 2.0)
    writer.started(Attempt(one, number=2))
    writer.ended(one, Outcome("failed", HOSTILE, 3.25))
    writer.stopping(now=False)
    writer.closed({one.id: Outcome("failed")})
    events = read(tmp_path)
    assert [event["event"] for event in events] == [
        "opened", "started", "running", "progress", "again", "started", "ended", "stopping", "closed",
    ]  # fmt: skip
    assert {event["run"] for event in events} == {"run1"}
    about = {"job": "a", "kind": "fake", "title": "job a", "folder": "cells/a"}
    assert about.items() <= events[1].items()
    assert (events[1]["attempt"], events[1]["place"], events[1]["gpus"]) == (1, "node1", [0, 3])
    assert (events[3]["stage"], events[3]["total"], events[3]["metrics"]) == ("training", 4, {"loss": 2.5})
    assert (events[4]["attempt"], events[4]["reason"]) == (2, "killed")
    assert events[5]["place"] is None
    assert (events[6]["status"], events[6]["reason"], events[6]["seconds"]) == ("failed", HOSTILE, 3.25)
    assert events[8] | {"failed": 1, "done": 0} == events[8]
    assert all(line.startswith(b'{"time": "20') for line in events_file(tmp_path).read_bytes().splitlines())


def test_progress_is_told_now_and_then_however_often_and_however_many_jobs_say_it(tmp_path: Path) -> None:
    clock = Clock()
    writer, jobs = log(tmp_path, clock=clock), [job(f"job{k}") for k in range(100)]
    for each in jobs:
        writer.started(Attempt(each))
    for _ in range(600):  # a minute
        clock.now += 0.1
        for each in jobs:
            writer.said(each, {"event": "progress", "stage": "training", "done": 1, "total": 4})
    told = [event["job"] for event in read(tmp_path) if event["event"] == "progress"]
    assert 50 <= len(told) <= 61
    assert max(map(told.count, told)) <= 2
    assert list(EventReader(tmp_path, without=("progress", "started")).new()) == []


_WRITER = """
import sys
from pathlib import Path
from harness.scheduling.event_log import EventLog
log = EventLog(Path(sys.argv[1]), sys.argv[2], "local", ["x" * 2000])
for _ in range(300):
    log.opened([])
"""


def test_several_harnesses_write_at_once_and_no_line_is_torn(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path), f"run{k}"]) for k in range(4)]
    assert [writer.wait(120) for writer in writers] == [0] * 4
    lines = events_file(tmp_path).read_bytes().splitlines()
    # One that opens the log while another writes may end that line once more: an empty line, which readers pass over.
    runs = [json.loads(line)["run"] for line in lines if line]
    assert len(read(tmp_path)) == len(runs)
    assert {run: runs.count(run) for run in runs} == {f"run{k}": 300 for k in range(4)}


def test_a_line_that_a_kill_has_torn_is_left_out_and_spoils_no_other(tmp_path: Path) -> None:
    log(tmp_path).opened([])
    with events_file(tmp_path).open("ab") as stream:
        stream.write(b'{"time": "2026-01-01T00:00:00.000Z", "run": "run1", "eve')
    reader = EventReader(tmp_path)
    assert [event["event"] for event in reader.new()] == ["opened"]
    other = log(tmp_path, "run2")
    other.opened([])
    other.stopping(now=True)
    assert [event["event"] for event in reader.new()] == ["opened", "stopping"]
    assert [event["run"] for event in read(tmp_path)] == ["run1", "run2", "run2"]


def test_a_large_log_is_put_aside_once_by_several_writers_and_readers_miss_nothing(tmp_path: Path) -> None:
    first, second = log(tmp_path, "run1", most_bytes=20_000), log(tmp_path, "run2", most_bytes=20_000)
    reader, found = EventReader(tmp_path), []
    for number in range(120):
        (first, second)[number % 2].ended(job(f"job{number}"), Outcome("done"))
        if number % 7 == 0:
            found += [event["job"] for event in reader.new()]
    found += [event["job"] for event in reader.new()]
    assert found == [f"job{number}" for number in range(120)]
    sizes = {path.name: path.stat().st_size for path in (tmp_path / ".harness").glob("events*")}
    assert set(sizes) == {"events.jsonl", OLDER_EVENTS}
    assert max(sizes.values()) < 21_000


def test_a_log_that_cannot_be_written_warns_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".harness").write_text("a file in its place")
    writer = log(tmp_path)
    writer.opened([])
    writer.stopping(now=False)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "some events could not be written" in caplog.text
