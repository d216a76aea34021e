"""A snapshot of a run on a terminal, in as many lines as fit: counts, a table of pairs and methods, running jobs, failures."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.watching.snapshot import STATES, Failure, PartState, RunningJob, Snapshot
from harness.watching.text import duration, left, line, number, roughly, size

STYLES: dict[PartState, str] = {
    "done": "green",
    "running": "cyan",
    "waiting": "dim",
    "failed": "bold red",
    "skipped": "yellow",
}
# Numbers of a job in the order of their importance, each with what stands behind it.
_NUMBERS = {
    "loss": "loss {}",
    "tokens_per_second": "{} tok/s",
    "items_per_second": "{} items/s",
    "learning_rate": "lr {}",
}
_MOST_FAILURES = 3


class LiveView:
    """Shows a snapshot in at most so many lines, all of it without `height`; the last failures, at most so many."""

    def __init__(self, snapshot: Snapshot, height: int | None = None, failures: int = _MOST_FAILURES) -> None:
        self._snapshot, self._height, self._failures = snapshot, height, failures

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Group(*self._parts(options.max_width))

    def _parts(self, width: int) -> list[RenderableType]:
        told = self._snapshot
        room = 10**6 if self._height is None else self._height
        parts: list[RenderableType] = [_header(told), _counts(told, width)][: max(1, room)]
        room -= 2
        failures = told.failures[: max(0, min(self._failures, room // 3))]
        room -= len(failures)
        # Running jobs come first; the table of pairs and methods has what they leave.
        jobs = _shown(told.running, room)
        used = len(jobs) + (len(jobs) < len(told.running)) + bool(jobs)
        groups = _groups(told, width, room - used)
        parts += groups
        if jobs:
            parts.append(_jobs(jobs, width))
        if len(jobs) < len(told.running) and room > 0:
            parts.append(_one(f"  … and {len(told.running) - len(jobs)} more jobs run", "dim"))
        parts += [_failure(each) for each in failures]
        return parts


def summary(told: Snapshot) -> str:
    """`12/40 cells, 3 running, 1 failed, about 2 h 10 min left`; jobs in place of cells where a run has none."""
    if told.total:
        ended = f"{told.cells['done']}/{told.total} cells"
        running, failed = told.cells["running"], told.cells["failed"]
    else:
        ended = f"{told.jobs_done}/{told.jobs} jobs"
        running, failed = len(told.running), len(told.failures)
    words = [ended, f"{running} running", f"{failed} failed" if failed else ""]
    if told.left is not None and not told.closed:
        words.append(left(told.left))
    if told.stopping and not told.closed:
        words.append("stopping")
    return ", ".join(filter(None, words))


def _one(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _header(told: Snapshot) -> Text:
    if told.closed or not told.lives:
        how = "has ended" if told.closed else "no harness runs it"
    else:
        how = "stopping" if told.stopping else f"runs for {roughly(told.seconds)}"
        if told.left is not None and not told.stopping:
            how += f", {left(told.left)}"
    header = _one(told.name, "bold")
    header.append(f"  {told.executor}  " if told.executor else "  ", style="not bold dim")
    header.append(how, style="not bold")
    return header


def _counts(told: Snapshot, width: int) -> RenderableType:
    row = Table.grid(padding=(0, 1), expand=False)
    bar = 24 if width >= 70 else 10
    if told.total:
        done, total, unit = told.cells["done"], told.total, "cells"
        states: Sequence[tuple[str, str]] = [(f"{told.cells[s]} {s}", STYLES[s]) for s in STATES if told.cells[s]]
    else:
        done, total, unit, states = told.jobs_done, told.jobs, "jobs", []
    words = Text(no_wrap=True, overflow="ellipsis")
    for index, (text, style) in enumerate(states):
        words.append(", " if index else "")
        words.append(text, style=style)
    if told.total and told.jobs:
        words.append(f"  {told.jobs_done}/{told.jobs} jobs", style="dim")
    row.add_column(width=bar)
    row.add_column(no_wrap=True)
    row.add_column(no_wrap=True, overflow="ellipsis")
    row.add_row(ProgressBar(total=max(total, 1), completed=done, width=bar), f"{done}/{total} {unit}", words)
    return row


def _groups(told: Snapshot, width: int, room: int) -> list[RenderableType]:
    """Pairs by methods, where the table fits."""
    pairs = list(dict.fromkeys(pair for pair, _ in told.groups))
    methods = list(dict.fromkeys(method for _, method in told.groups))
    if len(told.groups) < 2 or len(pairs) + 1 > room:
        return []
    names = [line(method, 24) for method in methods]
    cells = {group: _cell(counts) for group, counts in told.groups.items()}
    columns = [
        max([len(name), *(cell.cell_len for (_, of), cell in cells.items() if of == method)])
        for name, method in zip(names, methods, strict=True)
    ]
    first = max(len(line(pair, 40)) for pair in pairs)
    if first + sum(each + 2 for each in columns) + 2 > width:
        return []
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=first + 2, no_wrap=True)
    for each in columns:
        table.add_column(width=each, no_wrap=True, justify="right")
    table.add_row("", *(_one(name, "dim") for name in names))
    for pair in pairs:
        table.add_row(_one("  " + line(pair, 40)), *(cells.get((pair, method), Text("–", "dim")) for method in methods))
    return [table]


def _cell(counts: dict[PartState, int]) -> Text:
    """`3/5`, with what is wrong."""
    total = sum(counts.values())
    text = Text(f"{counts['done']}/{total}", style=STYLES["done"] if counts["done"] == total else "")
    if counts["running"]:
        text.append(f" {counts['running']}▸", style=STYLES["running"])
    if bad := counts["failed"] + counts["skipped"]:
        text.append(f" {bad}✗", style=STYLES["failed"])
    return text


def _shown(running: Sequence[RunningJob], room: int) -> list[RunningJob]:
    """The jobs that have a line: by place, with a header line and one for those that are left out."""
    ordered = sorted(running, key=lambda job: (job.place, job.devices, job.title))
    if not ordered or room < 2:
        return []
    return ordered if len(ordered) + 1 <= room else ordered[: max(0, room - 2)]


def _jobs(jobs: Sequence[RunningJob], width: int) -> Table:
    """One line a job. Columns that do not fit are left out, the least important first."""
    wide, wider = width >= 90, width >= 120
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=2)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=30)
    table.add_column(no_wrap=True, justify="right")
    header = ["where", "job", "stage", ""]
    if wide:
        table.add_column(no_wrap=True, overflow="ellipsis")
        header.append("")
    if wider:
        table.add_column(no_wrap=True)
        header.append("")
    table.add_column(no_wrap=True, justify="right")
    table.expand = True
    table.add_row(*(_one(name, "dim") for name in (*header, "time")))
    for job in jobs:
        share = "" if job.share is None else f"{job.share:4.0%}"
        row: list[RenderableType] = [
            _one(where(job), "cyan"),
            _one(job.title + (f" (try {job.attempt})" if job.attempt > 1 else "")),
            _one(stage(job), "" if job.state == "running" else "yellow"),
            _one(share),
        ]
        if wide:
            row.append(_one("  ".join(numbers(job)[:2])))
        if wider:
            row.append(_one("  ".join(used(job)), "dim"))
        table.add_row(*row, _one(duration(job.seconds) if job.seconds < 60 else roughly(job.seconds), "dim"))
    return table


def where(job: RunningJob) -> str:
    """The machine and its GPUs."""
    return line(job.place or "–", 20) + (f" gpu {line(job.devices, 12)}" if job.devices else "")


def stage(job: RunningJob) -> str:
    """What a job does, or why it does nothing."""
    if job.state == "waiting":
        return "another run is doing it"
    if job.state == "gone":
        return "its process has ended"
    if job.state == "silent" and job.beat_seconds is not None:
        return f"silent for {roughly(job.beat_seconds)}"
    return line(job.stage, 60) or job.state


def numbers(job: RunningJob) -> list[str]:
    """The numbers of a training or an evaluation, the most important first."""
    return [text.format(number(job.metrics[name])) for name, text in _NUMBERS.items() if name in job.metrics]


def used(job: RunningJob) -> list[str]:
    """The memory and GPUs that a job uses."""
    parts = [size(job.memory)] if job.memory else []
    if job.device_memory:
        parts.append(f"GPU {size(job.device_memory)}")
    if job.device_use is not None:
        parts.append(f"{job.device_use:.0f} %")
    return parts


def _failure(failure: Failure) -> Text:
    text = _one("FAIL ", "bold red")
    text.append(f"{line(failure.title)}: {line(failure.reason)}", style="not bold")
    return text
