"""What a person at a terminal, or the reader of a log, sees of a run."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from harness.cli.live_view import LiveView, summary
from harness.cli.progress import LiveReporter, PlainReporter
from harness.planning.plan import PlannedJob
from harness.runs.job_spec import Output
from harness.scheduling.executor import Allocation, Attempt
from harness.scheduling.observer import Observers
from harness.scheduling.outcome import Outcome
from harness.watching.snapshot import Failure, RunningJob, Snapshot
from harness.watching.time_left import Guess
from harness.watching.watch import Watch
from helpers.executor_runs import fake, planned

HERE = Allocation("here", 1)


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def job(name: str, title: str | None = None) -> PlannedJob:
    return planned(Path(), fake(Path(), name, title=title or name))[0]


def play(make: Callable[[Watch], PlainReporter], jobs: list[PlannedJob]) -> None:
    first, second = jobs[:2]
    watch = Watch(Path("run"), jobs)
    with make(watch) as reporter:
        everybody = Observers([watch, reporter])
        everybody.started(Attempt(first, allocation=HERE))
        everybody.said(first, {"event": "progress", "stage": "training", "done": 1, "total": 4})
        everybody.tick()
        everybody.started(Attempt(second, allocation=HERE))
        everybody.said(second, {"event": "waiting"})
        everybody.ended(first, Outcome("done", seconds=3.0))
        everybody.ended(second, Outcome("failed", "RuntimeError: [x]", seconds=1.0))
        for each in jobs[2:]:
            everybody.ended(each, Outcome("not_run", "needs 'second', which failed"))
        everybody.closed({})


def lines_of(jobs: list[PlannedJob]) -> list[str]:
    stream = io.StringIO()
    play(lambda watch: PlainReporter(Console(file=stream), watch), jobs)
    return stream.getvalue().splitlines()


def test_without_a_terminal_each_job_has_a_line_when_it_starts_and_when_it_ends() -> None:
    lines = lines_of([job("first [a]"), job("second"), job("third")])
    assert lines[0] == "[0/3] start first [a]"
    assert lines[2] == "[0/3] wait  second  another run is doing it"
    assert lines[3].startswith("[1/3] done  first [a]  3.0 s")
    assert lines[4] == "[2/3] FAIL  second  1.0 s: RuntimeError: [x]"
    assert lines[5] == "[3/3] skip  third  needs 'second', which failed"


def test_a_large_run_has_no_lines_of_starts_and_one_for_all_that_is_skipped_for_one_reason() -> None:
    lines = lines_of([job("first"), job("second"), *(job(f"job{k}") for k in range(60))])
    assert [line.split(" ", 1)[1][:5] for line in lines] == ["wait ", "done ", "FAIL ", "skip "]
    assert lines[-1] == "[62/62] skip  60 jobs  needs 'second', which failed"


def test_titles_and_reasons_cannot_act_on_the_terminal() -> None:
    stream = io.StringIO()
    evil = job("evil", title="\x1b[2Jclear\x1b]0;title\x07 [red]x[/red]\u202e\rover")
    watch = Watch(Path(), [evil])
    with PlainReporter(Console(file=stream), watch) as reporter:
        reporter.ended(evil, Outcome("failed", "two\nlines \x1b[31mred \x9b5m", seconds=1.0))
    assert stream.getvalue() == "[0/1] FAIL  clear [red]x[/red]over  1.0 s: two lines red \n"


def test_once_a_minute_a_line_says_where_the_run_is() -> None:
    stream, clock = io.StringIO(), Clock()
    jobs = [job(f"job{k}") for k in range(3)]
    watch = Watch(Path(), jobs, clock=clock)
    with PlainReporter(Console(file=stream), watch, clock) as reporter:
        everybody = Observers([watch, reporter])
        everybody.started(Attempt(jobs[0], allocation=HERE))
        clock.now = 30.0
        everybody.ended(jobs[0], Outcome("done", seconds=30.0))
        everybody.started(Attempt(jobs[1], allocation=HERE))
        before = len(stream.getvalue().splitlines())
        for _ in range(1100):
            clock.now += 0.1
            everybody.tick()
    told = stream.getvalue().splitlines()[before:]
    assert told == ["1/3 cells, 1 running, about 30 s left", "1/3 cells, 1 running, about 30 s left"][: len(told)]
    assert len(told) == 2


def test_a_job_in_a_queue_is_told_as_queued_and_runs_only_when_it_says_so() -> None:
    stream = io.StringIO()
    queued = job("queued")
    watch = Watch(Path(), [queued])
    with PlainReporter(Console(file=stream), watch) as reporter:
        everybody = Observers([watch, reporter])
        everybody.started(Attempt(queued))
        assert watch.snapshot().cells == {"waiting": 1}
        everybody.said(queued, {"event": "started", "host": "node7", "devices": "3"})
        (running,) = watch.snapshot().running
        assert (running.place, running.devices) == ("node7", "3")
        everybody.said(queued, {"event": "again", "reason": "preempted"})
        assert watch.snapshot().running == []
        everybody.said(queued, {"event": "progress", "stage": "x", "done": 1, "total": 2})
        assert [each.stage for each in watch.snapshot().running] == ["x"]
    assert [line[6:] for line in stream.getvalue().splitlines()[:3]] == [
        "queue queued",
        "start queued  on node7",
        "again queued  preempted; back in the queue",
    ]


# --- the view on a terminal ---


def snapshot(running: int = 0, failures: int = 0, pairs: int = 1, methods: int = 1) -> Snapshot:
    watch = Watch(Path("runs/x"), [], name="x")
    for pair in range(pairs):
        for method in range(methods):
            watch.cells.set(f"cells/t{pair}__s{pair}/m{method}/seed1/train", "waiting")
    told = watch.snapshot()
    told.running = [
        RunningJob(
            f"train:{k}",
            f"train pair/method/seed{k}",
            "train",
            place=f"node{k % 3}",
            devices=str(k),
            state="running",
            stage="training",
            done=k,
            total=max(running, 1),
            metrics={"loss": 1.234567, "tokens_per_second": 81234.5},
            memory=5 * 10**9,
            device_memory=60 * 10**9,
            device_use=97.0,
            seconds=75.0,
        )
        for k in range(running)
    ]
    told.failures = [Failure(f"evaluate {k}", "out of memory; fix: [bold]less[/bold]") for k in range(failures)]
    told.left = Guess(7800.0)
    return told


def drawn(told: Snapshot, width: int, height: int | None, **more: bool) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, height=50, color_system="truecolor", **more)
    console.print(LiveView(told, height))
    return stream.getvalue().splitlines()


def bare(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


@pytest.mark.parametrize("width", [20, 40, 80, 100, 200])
@pytest.mark.parametrize("height", [3, 5, 10, 22, 48])
@pytest.mark.parametrize("running", [0, 1, 8, 1000])
def test_the_view_fits_whatever_the_terminal_and_the_run(width: int, height: int, running: int) -> None:
    for told in (snapshot(running, failures=9, pairs=12, methods=9), snapshot(running, pairs=1, methods=2)):
        lines = drawn(told, width, height)
        assert len(lines) <= height
        assert max(len(bare(line)) for line in lines) <= width
        assert bare(lines[0]).startswith("x")


def test_the_view_shows_cells_jobs_by_place_and_failures() -> None:
    lines = [bare(line) for line in drawn(snapshot(running=5, failures=2, pairs=2, methods=3), 160, 40)]
    text = "\n".join(lines)
    assert "about 2 h 10 min left" in lines[0]
    assert "0/6 cells 6 waiting" in lines[1]
    assert re.search(r"t1__s1 +0/1 +0/1 +0/1", text)
    (first,) = [line for line in lines if "seed3" in line]
    for part in (
        "node0 gpu 3",
        "training",
        "60%",
        "loss 1.23",
        "81,234 tok/s",
        "5.0 GB",
        "GPU 60.0 GB",
        "97 %",
        "75 s",
    ):
        assert part in first
    places = [line.split()[0] for line in lines if "train pair" in line]
    assert places == sorted(places)
    assert "FAIL evaluate 0: out of memory; fix: [bold]less[/bold]" in text


def test_what_does_not_fit_is_counted() -> None:
    lines = [bare(line) for line in drawn(snapshot(running=100), 100, 12)]
    assert lines[-1] == "  … and 92 more jobs run"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = "\n".join(drawn(snapshot(running=2, failures=1), 120, 20))
    assert not re.search(r"\x1b\[[0-9;]*(3[0-9]|9[0-9]|38|48)", text)


def test_a_terminal_gets_the_view_and_the_lines_of_what_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = io.StringIO()
    jobs = [job("first [a]"), job("second"), job("third")]
    console = Console(file=stream, force_terminal=True, width=120, height=30)
    play(lambda watch: LiveReporter(console, watch), jobs)
    text = bare(stream.getvalue())
    assert "0/3 cells 1 running, 2 waiting" in text
    assert "[1/3] done  first [a]  3.0 s" in text
    assert "FAIL  second  1.0 s: RuntimeError: [x]" in text
    last = text.rpartition("[3/3] skip  third")[2]
    assert "has ended" in last
    assert "1/3 cells 1 done, 1 failed, 1 skipped" in last


def test_another_size_of_the_terminal_is_drawn_anew() -> None:
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, force_terminal=True, width=150, height=40)
    jobs = [job(f"job{k}") for k in range(30)]
    watch = Watch(Path(), jobs)
    with LiveReporter(console, watch, clock) as reporter:
        for each in jobs:
            watch.started(Attempt(each, allocation=HERE))
        reporter.tick()
        before = stream.tell()
        console.width, console.height = 50, 10
        clock.now = 1.0
        reporter.tick()
        stream.seek(before)
        text = stream.read()
    assert "\x1b[2J" in text
    frame = [bare(line) for line in text.rpartition("\x1b[2J")[2].splitlines()]
    assert "… and 26 more jobs run" in frame[-1]
    assert max(map(len, frame)) <= 55
    assert len(frame) <= 8


def test_the_summary_counts_jobs_where_a_run_has_no_cells() -> None:
    told = Snapshot("x", "x", jobs=4, jobs_done=1)
    assert summary(told) == "1/4 jobs, 0 running"


def test_outputs_of_earlier_runs_count_as_done() -> None:
    done, missing = job("done"), job("missing")
    done.action, done.wanted = "keep", []
    done.outputs = [type(done.outputs[0])(Output("cells/done", done.step.fingerprint), "done", "done")]
    assert Watch(Path(), [done, missing]).snapshot().cells == {"done": 1, "waiting": 1}
