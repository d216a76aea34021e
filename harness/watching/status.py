"""The state of a run from its folder alone, for another terminal or another machine that sees the disk. Nothing is written.

What an output is comes from its manifest, what runs from the state files of jobs, what is still to be done and whether anybody does it
from the folders of the harness processes, what failed or was left out by the living ones from the event log.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dskd.errors import InputError
from harness.results.run_file import RunFile
from harness.runs.job_state import STATE, JobState
from harness.runs.store import INCOMPLETE, LOG, MANIFEST, RUN
from harness.runs.which_process import lives
from harness.scheduling.event_log import EventReader
from harness.scheduling.run_process import JobOfRun, RunProcess, read_run_process, run_folders
from harness.watching.liveness import beat_age, living
from harness.watching.snapshot import Cells, Failure, PartState, RunningJob, Snapshot, cell_of, group_of
from harness.watching.text import line
from harness.watching.time_left import Alike, Guess, TimeLeft

_SILENT = 60.0  # seconds without a beat after which a job of another machine counts as silent
_AT_WORK = {"starting", "running"}


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
    events = _Events(root, processes)
    states = list(_states(root))
    running = [job for job in states if job.state in _AT_WORK and lives(job.machine, job.pid, job.born) is not False]
    # What was killed on another machine has left its state: it is as old as before the harnesses that live.
    since = max((_age_of(folder / "run.json") for folder, _ in found), default=0.0)
    running = [
        job
        for job in running
        if lives(job.machine, job.pid, job.born) or (_age(root, job, time.time()) or 0.0) < max(since, _SILENT)
    ]
    at_work = {folder for job in running for folder in job.outputs}
    if processes:
        at_work |= events.starting
    to_do = {folder for process in processes for job in process.jobs for folder in job.outputs}
    known = [folder for process in (processes or events.last) for job in process.jobs for folder in job.outputs]
    outputs = [_output(root, each, at_work, to_do, events) for each in dict.fromkeys([*folders, *known])]
    cells = Cells()
    for output in outputs:
        cells.set(output.folder, output.state)
    clock = _clock([folder for folder, _ in found])
    shown = [_running(root, job, clock) for job in running]
    if processes:
        heard = {job.id for job in shown}
        shown += [
            _starting(root, event) for job, event in events.started.items() if job not in heard and event.get("place")
        ]
    planned = {job.id: job for process in processes for job in process.jobs}
    ended = {key for key in planned if key in events.ended}
    snapshot = Snapshot(
        name=line(name),
        root=str(root),
        executor=", ".join(dict.fromkeys(process.executor for process in processes)),
        lives=bool(processes),
        seconds=max((_since(process.started) for process in processes), default=0.0),
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


class _Events:
    """What the event log says of the living harnesses, or of the last one: how jobs ended, and how long they took."""

    def __init__(self, root: Path, processes: list[RunProcess]) -> None:
        self.last = [] if processes else [*filter(None, map(read_run_process, run_folders(root)[:1]))]
        runs = {process.run for process in processes or self.last}
        self.ended: dict[str, dict[str, Any]] = {}
        self.started: dict[str, dict[str, Any]] = {}  # what was started and has not ended
        self.taken: list[dict[str, Any]] = []
        self.stopping = False
        for event in EventReader(root, without=("progress", "running")).new():
            if event["event"] == "ended" and event.get("status") == "done":
                self.taken.append(event)
            if event.get("run") not in runs:
                continue
            job = str(event.get("job"))
            if event["event"] in {"ended", "again"}:
                self.started.pop(job, None)
            if event["event"] == "ended":
                self.ended[job] = event
            elif event["event"] == "started":
                self.ended.pop(job, None)
                self.started[job] = event
            elif event["event"] == "stopping":
                self.stopping = True
        outputs = {job.id: job.outputs for process in processes or self.last for job in process.jobs}
        self.starting = {
            folder for job, event in self.started.items() if event.get("place") for folder in outputs.get(job, ())
        }
        # Of each folder how its job ended: those that were left out have no manifest to say it.
        self.by_folder = {str(event.get("folder")): event for event in self.ended.values()}
        if not processes:
            self.stopping = False


def _states(root: Path) -> Iterator[JobState]:
    try:
        with os.scandir(root / ".harness" / "jobs") as entries:
            names = sorted(entry.path for entry in entries)
    except OSError:
        return
    for name in names:
        if (state := JobState.read_file(Path(name, STATE))) is not None:
            yield state


def _age_of(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _age(root: Path, job: JobState, clock: float) -> float | None:
    """The seconds since a job wrote its state."""
    try:
        return max(0.0, clock - JobState.path(root, job.job).stat().st_mtime)
    except OSError:
        return None


def _clock(folders: list[Path]) -> float:
    """The time by which ages count: ours, unless that of the disk differs, as the beat of a living harness shows."""
    ages = [age for age in map(beat_age, folders) if age is not None]
    youngest = min(ages, key=abs, default=0.0)
    return time.time() - youngest if abs(youngest) > _SILENT else time.time()


def _running(root: Path, job: JobState, clock: float) -> RunningJob:
    age = _age(root, job, clock)
    known = lives(job.machine, job.pid, job.born)
    is_silent = known is None and age is not None and age > _SILENT
    return RunningJob(
        id=job.job,
        title=line(job.title or job.job),
        kind=job.job.partition(":")[0],
        cell=cell_of(job.folder),
        place=line(job.host),
        devices=line(job.devices or ""),
        attempt=job.attempt,
        state="silent" if is_silent else job.state,
        seconds=job.seconds + (age or 0.0),
        stage=line(job.stage),
        done=job.done,
        total=job.total,
        metrics=job.metrics,
        memory=job.memory,
        device_memory=job.device_memory,
        device_use=job.device_use,
        beat_seconds=None if age is None else round(age, 1),
        log=str(root / job.folder / LOG),
    )


def _starting(root: Path, event: dict[str, Any]) -> RunningJob:
    """A job whose process was started and has not written its state yet."""
    folder = str(event.get("folder"))
    return RunningJob(
        id=str(event["job"]),
        title=line(event.get("title", "")),
        kind=str(event.get("kind")),
        cell=cell_of(folder),
        place=line(event["place"]),
        devices=",".join(map(str, event.get("gpus") or ())),
        attempt=int(event.get("attempt") or 1),
        seconds=_since(str(event.get("time"))),
        log=str(root / folder / LOG),
    )


def _output(root: Path, folder: str, at_work: set[str], to_do: set[str], events: _Events) -> OutputState:
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


def _failures(root: Path, outputs: list[OutputState], events: _Events) -> list[Failure]:
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


def _since(started: str) -> float:
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds())
    except ValueError:
        return 0.0


def _alike(kind: str, folder: str) -> Alike:
    cell = cell_of(folder)
    pair, method = group_of(cell) if cell is not None else ("", "")
    return Alike(kind, pair, method)


def _time_left(events: _Events, jobs: Iterable[JobOfRun], running: list[RunningJob], ended: set[str]) -> Guess | None:
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
