"""The state of a run from its folder alone, for another terminal or another machine that sees the disk. Nothing is written.

What an output is comes from its manifest, what runs from the state files of jobs, what is still to be done and whether anybody does it
from the folders of the harness processes, what failed or was left out by the living ones from the event log.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dskd.errors import InputError
from harness.results.run_file import RunFile
from harness.runs.store import INCOMPLETE, LOG, MANIFEST, RUN
from harness.scheduling.run_process import JobOfRun, RunProcess, read_run_process, run_folders
from harness.watching.history import History
from harness.watching.liveness import living
from harness.watching.running_jobs import disk_clock, jobs_at_work, running_job, seconds_since, starting_job
from harness.watching.snapshot import Cells, Failure, PartState, RunningJob, Snapshot, cell_of, group_of
from harness.watching.text import line
from harness.watching.time_left import Alike, Guess, TimeLeft


class _Manifest(BaseModel):
    """What a status needs of `manifest.json`; the rest is large and not looked at."""

    kind: str = ""
    title: str = ""
    state: str
    seconds: float | None = None
    error: str | None = None


@dataclass
class OutputState:
    """An output. reason: why it failed, or that it was interrupted; log: its log, where it has one."""

    folder: str
    state: PartState
    reason: str = ""
    log: str = ""
    title: str = ""
    kind: str = ""
    seconds: float | None = None


@dataclass
class Status:
    """A run as its folder shows it. processes: the living harnesses; jobs: theirs, or those of the last one."""

    snapshot: Snapshot
    outputs: list[OutputState]
    cells: Cells
    processes: list[RunProcess] = field(default_factory=list)
    jobs: list[JobOfRun] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether anything failed, or was left out for that."""
        return bool(self.snapshot.failures or self.snapshot.cells["failed"])

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        by_cell: dict[str, list[dict[str, Any]]] = {}
        for output in self.outputs:
            by_cell.setdefault(cell_of(output.folder) or "", []).append(asdict(output))
        shared = by_cell.pop("", [])
        return {
            **self.snapshot.as_json(),
            "harnesses": [each.model_dump(exclude={"jobs"}) for each in self.processes],
            "cell_states": [
                {"cell": cell, "state": self.cells.states[cell], "outputs": outputs}
                for cell, outputs in by_cell.items()
            ],
            "shared": shared,
        }


def read_status(root: Path) -> Status:
    """The state of a run. InputError where the folder holds none."""
    name, folders = _what_it_is(root)
    found = living(root)
    processes = [process for _, process in found]
    events = History(root, processes)
    running = jobs_at_work(root, [folder for folder, _ in found])
    at_work = {folder for job in running for folder in job.outputs}
    if processes:
        at_work |= events.starting
    to_do = {folder for process in processes for job in process.jobs for folder in job.outputs}
    known = [folder for process in (processes or events.last) for job in process.jobs for folder in job.outputs]
    outputs = [_output(root, each, at_work, to_do, events) for each in dict.fromkeys([*folders, *known])]
    cells = Cells()
    for output in outputs:
        cells.set(output.folder, output.state)
    clock = disk_clock([folder for folder, _ in found])
    shown = [running_job(root, job, clock) for job in running]
    if processes:
        heard = {job.id for job in shown}
        shown += [
            starting_job(root, event)
            for job, event in events.started.items()
            if job not in heard and event.get("place")
        ]
    planned = {job.id: job for process in processes for job in process.jobs}
    ended = {key for key in planned if key in events.ended}
    snapshot = Snapshot(
        name=line(name),
        root=str(root),
        executor=", ".join(dict.fromkeys(process.executor for process in processes)),
        lives=bool(processes),
        seconds=max((seconds_since(process.started) for process in processes), default=0.0),
        left=None,
        cells=cells.by_state,
        groups=cells.by_group,
        running=shown,
        failures=_failures(root, outputs, events),
        jobs_done=len(ended),
        jobs=len(planned),
        stopping=events.stopping,
        closed=not processes and any((folder / "closed").exists() for folder in run_folders(root)[:1]),
    )
    if processes:
        snapshot.left = _time_left(events, planned.values(), shown, ended)
    return Status(snapshot, outputs, cells, processes, [job for each in processes or events.last for job in each.jobs])


def _what_it_is(root: Path) -> tuple[str, list[str]]:
    """The name of the run, and the folders of the records that it will have."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; fix: give the folder of a run")
    try:
        told = RunFile.model_validate_json((root / RUN).read_text(encoding="utf-8"))
        return told.matrix, told.records
    except FileNotFoundError:
        pass
    except ValidationError as error:
        raise InputError(f"{root / RUN}: {error.errors()[0]['msg']}; fix: run the matrix again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{root / RUN}: cannot be read ({error}); fix: run the matrix again") from None
    # A single training or evaluation has no matrix.
    newest = next(filter(None, map(read_run_process, run_folders(root))), None)
    if newest is None:
        raise InputError(f"{root}: holds no run (no {RUN}); fix: give the folder of a run, as runs/NAME")
    return newest.name or root.resolve().name, [folder for job in newest.jobs for folder in job.outputs]


def _output(root: Path, folder: str, at_work: set[str], to_do: set[str], events: History) -> OutputState:
    path = os.path.join(root, folder)  # noqa: PTH118 - ten thousand of them
    try:
        with open(os.path.join(path, MANIFEST), "rb") as stream:  # noqa: PTH118, PTH123
            manifest = _Manifest.model_validate_json(stream.read())
    except (OSError, ValueError):
        manifest = None
    output = OutputState(folder, "waiting")
    if manifest is not None:
        output.title, output.kind, output.seconds = manifest.title, manifest.kind, manifest.seconds
        output.log = os.path.join(path, LOG)  # noqa: PTH118
    ended = events.by_folder.get(folder, {})
    is_marked = manifest is not None and os.path.exists(os.path.join(path, INCOMPLETE))  # noqa: PTH110, PTH118
    if folder in at_work:
        output.state = "running"
    elif manifest is not None and manifest.state == "done" and not is_marked:
        output.state = "done"
    elif ended.get("status") == "failed":
        output.state, output.reason = "failed", str(ended.get("reason", ""))
    elif ended.get("status") == "not_run":
        output.state, output.reason = "skipped", str(ended.get("reason", ""))
    elif manifest is not None and manifest.state == "failed" and folder not in to_do:
        output.state, output.reason = "failed", manifest.error or ""
    elif manifest is not None and is_marked:
        output.reason = "interrupted"
    return output


def _failures(root: Path, outputs: list[OutputState], events: History) -> list[Failure]:
    """What failed, the last first; a job whose outputs are all known by their manifests has one line an output."""
    found = {
        each.folder: Failure(
            line(each.title or each.folder),
            line(each.reason),
            each.log or str(root / each.folder / LOG),
            cell_of(each.folder),
        )
        for each in outputs
        if each.state == "failed"
    }
    for folder, event in events.by_folder.items():
        if event.get("status") == "failed":
            title, reason = line(event.get("title", "")), line(event.get("reason", ""))
            found[folder] = Failure(title, reason, str(root / folder / LOG), cell_of(folder))
    return list(reversed(list({(each.title, each.reason): each for each in found.values()}.values())))


def _alike(kind: str, folder: str) -> Alike:
    cell = cell_of(folder)
    pair, method = group_of(cell) if cell is not None else ("", "")
    return Alike(kind, pair, method)


def _time_left(events: History, jobs: Iterable[JobOfRun], running: list[RunningJob], ended: set[str]) -> Guess | None:
    """From how long jobs took, by the event log, and how far the running ones are."""
    left = [job for job in jobs if job.id not in ended]
    guess = TimeLeft({job.id: _alike(job.kind, job.folder) for job in left}, {job.id: job.needs for job in left})
    for event in events.taken:
        guess.learn(_alike(str(event.get("kind")), str(event.get("folder"))), float(event.get("seconds") or 0.0))
    known = {job.id for job in left}
    for job in running:
        if job.id in known:
            guess.started(job.id, -job.seconds)
            if job.share is not None:
                guess.advanced(job.id, job.stage, 0.0, -job.seconds)
                guess.advanced(job.id, job.stage, job.share, -(job.beat_seconds or 0.0))
    return guess.guess(0.0)
