"""The status page `DIR/status.html`: one file that loads nothing, runs no script, and has itself loaded again while the run goes on.

All text is escaped, and the content security policy in its head allows one style by its hash and nothing else, so that injected markup
could do nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from harness.report.page import asset, policy_hash
from harness.runs.store import now
from harness.scheduling.observer import Observer
from harness.scheduling.outcome import Outcome
from harness.watching.snapshot import STATES, RunningJob, Snapshot
from harness.watching.text import duration, left, line, number, roughly, size
from harness.watching.watch import Watch

PAGE = "status.html"
EVERY = 15.0  # seconds between two writings, and between two loadings
_MOST_ROWS = 500
_METRICS = ("loss", "tokens_per_second", "items_per_second", "learning_rate")


class PageWriter(Observer):
    """Writes the page of a run every fifteen seconds at most, and at its end. Where it cannot be written, the run goes on.

    Args:
        path: The file.
        watch: Counts; it has to hear of everything first.
        clock: Seconds that go on steadily.
    """

    def __init__(self, path: Path, watch: Watch, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._watch, self._clock = path, watch, clock
        self._last = float("-inf")

    def tick(self) -> None:
        """Write it again when it is time."""
        moment = self._clock()
        if moment - self._last >= EVERY:
            self._last = moment
            self._write()

    def closed(self, outcomes: Mapping[str, Outcome]) -> None:
        """Write it for the last time; nothing loads it again."""
        self._write()

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            write_page(self._path, self._watch.snapshot())


def write_page(path: Path, told: Snapshot) -> None:
    """Write the page of a snapshot, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(render_page(told), encoding="utf-8", errors="replace")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def render_page(told: Snapshot) -> str:
    """The page as HTML."""
    own = files("harness.watching").joinpath("assets")
    style = "\n".join([asset("page.css"), asset("tables.css"), own.joinpath("status.css").read_text(encoding="utf-8")])
    goes_on = told.lives and not told.closed
    sections = [_cells(told), _groups(told), _running(told), _failures(told)]
    return Template(own.joinpath("status.html").read_text(encoding="utf-8")).substitute(
        policy=f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src {policy_hash(style)}",
        refresh=f'<meta http-equiv="refresh" content="{EVERY:.0f}">' if goes_on else "",
        title=_text(f"{told.name} – status"),
        name=_text(told.name),
        style=style,
        facts=_text(_facts(told)),
        written=_text(f"Written {now()}." + (" It is written every 15 s while the run goes on." if goes_on else "")),
        sections="\n".join(filter(None, sections)),
    )


def _text(value: object) -> str:
    return escape(line(value))


def _facts(told: Snapshot) -> str:
    if told.closed:
        how = "The run has ended."
    elif not told.lives:
        how = "No harness runs it."
    else:
        how = f"Runs for {roughly(told.seconds)}"
        how += f", {left(told.left)}." if told.left is not None else "."
        how += " It has been asked to stop." if told.stopping else ""
    jobs = f" {told.jobs_done} of {told.jobs} jobs of this start have ended." if told.jobs else ""
    return how + jobs + (f" Executor: {told.executor}." if told.executor else "")


def _cells(told: Snapshot) -> str:
    if not told.total:
        return ""
    done = told.cells["done"]
    states = "".join(
        f'<li class="{state}"><b>{told.cells[state]}</b> {state}</li>' for state in STATES if told.cells[state]
    )
    bar = f'<progress class="bar" value="{done}" max="{told.total}" aria-label="cells that are done"></progress>'
    return _section("cells", "Cells", f'<p>{done} of {told.total} done</p>{bar}<ul class="states">{states}</ul>')


def _groups(told: Snapshot) -> str:
    if len(told.groups) < 2:
        return ""
    pairs = list(dict.fromkeys(pair for pair, _ in told.groups))
    methods = list(dict.fromkeys(method for _, method in told.groups))
    rows = []
    for pair in pairs:
        cells = []
        for method in methods:
            counts = told.groups.get((pair, method))
            if counts is None:
                cells.append('<td class="empty">–</td>')
                continue
            parts = [f'<span class="{state}">{counts[state]} {state}</span>' for state in STATES if counts[state]]
            cells.append(f"<td>{', '.join(parts)}</td>")
        rows.append(f"<tr><th><bdi>{_text(pair)}</bdi></th>{''.join(cells)}</tr>")
    head = "".join(f"<th>{_text(method)}</th>" for method in methods)
    return _section("groups", "By pair and method", _table(f"<th>pair</th>{head}", rows))


def _running(told: Snapshot) -> str:
    if not told.running:
        return ""
    head = "".join(f"<th>{name}</th>" for name in ("where", "job", "stage", "numbers", "memory", "time"))
    ordered = sorted(told.running, key=lambda job: (job.place, job.devices, job.title))
    return _section("running", f"Running: {len(ordered)}", _table(f"{head}", map(_job, ordered[:_MOST_ROWS])))


def _job(job: RunningJob) -> str:
    where = line(job.place or "–") + (f" GPU {line(job.devices)}" if job.devices else "")
    again = f" (try {job.attempt})" if job.attempt > 1 else ""
    bar = "" if job.share is None else f' <progress value="{job.share:.4f}" max="1"></progress> {job.share:.0%}'
    stage = line(job.stage) or job.state
    if job.state in {"waiting", "silent", "gone"}:
        stage = {"waiting": "another run is doing it", "gone": "its process has ended"}.get(job.state, "silent")
    numbers = [f"{name.replace('_', ' ')} {number(job.metrics[name])}" for name in _METRICS if name in job.metrics]
    memory = [size(job.memory)] if job.memory else []
    memory += [f"GPU {size(job.device_memory)}"] if job.device_memory else []
    memory += [f"{job.device_use:.0f} % busy"] if job.device_use is not None else []
    cells = (
        f"<td>{_text(where)}</td>",
        f"<td><bdi>{_text(job.title)}</bdi>{again}</td>",
        f"<td><bdi>{_text(stage)}</bdi>{bar}</td>",
        f"<td>{_text(', '.join(numbers))}</td>",
        f"<td>{_text(', '.join(memory))}</td>",
        f'<td class="numeric">{_text(duration(job.seconds))}</td>',
    )
    return f"<tr>{''.join(cells)}</tr>"


def _failures(told: Snapshot) -> str:
    if not told.failures:
        return ""
    rows = [
        f'<tr><td><bdi>{_text(each.title)}</bdi></td><td class="reason"><bdi>{_text(each.reason)}</bdi></td>'
        f"<td><code>{_text(each.log)}</code></td></tr>"
        for each in told.failures[:_MOST_ROWS]
    ]
    return _section("failures", "Failed", _table("<th>job</th><th>reason</th><th>log</th>", rows))


def _section(name: str, title: str, content: str) -> str:
    return f'<section id="{name}"><h2>{escape(title)}</h2>{content}</section>'


def _table(head: str, rows: Iterable[str]) -> str:
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
