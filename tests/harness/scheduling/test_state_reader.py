"""What jobs say by their state files is what they would say through a pipe."""

from __future__ import annotations

from pathlib import Path

from harness.runs.job_context import ProgressChannel
from harness.runs.job_state import JobState, StateWriter
from harness.scheduling.state_reader import StateReader


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_says_what_is_new_once_and_looks_every_two_seconds(tmp_path: Path) -> None:
    clock = Clock()
    reader = StateReader(tmp_path, clock=clock)

    def said() -> list[dict[str, object]]:
        return [dict(each.event) for each in reader.said(["a"])]

    assert said() == []
    writer = StateWriter(tmp_path, "a", 1)
    channel = ProgressChannel(writer)
    channel.started()
    assert said() == []  # not looked at again yet
    clock.now = 2.0
    started, metrics = said()
    assert (started["event"], metrics["event"]) == ("started", "metrics")
    assert started["host"]
    clock.now = 4.0
    assert said() == []
    channel.advance("training", 3, 10)
    channel.measure(loss=1.5)
    writer._write()  # what its thread does two seconds later
    clock.now = 6.0
    progress, metrics = said()
    assert progress == {"event": "progress", "stage": "training", "done": 3, "total": 10}
    assert metrics["metrics"] == {"loss": 1.5}
    assert metrics["memory"]
    channel.ended("done")
    clock.now = 8.0
    assert said() == []
    state = reader.state("a", attempt=1)
    assert state is not None
    assert state.state == "done"
    assert reader.state("a", attempt=2) is None


def test_another_try_begins_anew(tmp_path: Path) -> None:
    clock = Clock()
    reader = StateReader(tmp_path, clock=clock)
    StateWriter(tmp_path, "a", 1).running()
    assert [each.event["event"] for each in reader.said(["a"])] == ["started", "metrics"]
    JobState.path(tmp_path, "a").write_text(
        JobState(job="a", state="running", pid=77, beat=1, attempt=2).model_dump_json()
    )
    clock.now = 2.0
    assert [each.event["event"] for each in reader.said(["a"])] == ["started", "metrics"]
    reader.forget("a")
    assert [each.event["event"] for each in reader.said(["a"])] == ["started", "metrics"]
