"""`DIR/.harness/events.jsonl`: what happened in a run, one JSON object a line, for programs that follow it. The format is stable.

Each line has `time` (UTC, milliseconds), `run` (the id of the harness process that wrote it) and `event`, with these fields:

| event | fields |
|---|---|
| `opened` | `jobs`: how many it will run, `executor`, `command`, `host`, `pid` |
| `started` | `job`, `kind`, `title`, `folder`, `attempt`, `place`, `gpus`: null where it was handed to a queue |
| `running` | `job`, `host`, `devices`: its process has begun to work; `devices` is its CUDA_VISIBLE_DEVICES |
| `progress` | `job`, `stage`, `done`, `total`, `metrics`: at most one line a job every 30 s, and one a second in all |
| `again` | `job`, `reason`, `attempt`: the next one, `seconds` until then |
| `ended` | `job`, `kind`, `title`, `folder`, `status`: `done`, `failed`, `stopped` or `not_run`, `reason`, `seconds` |
| `stopping` | `now`: whether running jobs are ended at once |
| `closed` | how many jobs there are of each status |

Fields may be added. Several harnesses may write at once: each line is one write at the end of the file. A reader leaves out a last line
that has no end yet, and what a writer that was killed has torn. Above 64 MB the file becomes `events.1.jsonl`, which replaces the one
before it.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.planning.plan import PlannedJob
from harness.runs.which_process import own
from harness.scheduling.executor import Attempt
from harness.scheduling.observer import Observer
from harness.scheduling.outcome import Outcome

EVENTS, OLDER_EVENTS = "events.jsonl", "events.1.jsonl"
_MOST_BYTES = 64 * 10**6
_EVERY = 30.0  # seconds between two lines of progress of one job
_logger = logging.getLogger(__name__)


def events_file(root: Path) -> Path:
    """Where the events of a run's folder are."""
    return root / ".harness" / EVENTS


class EventReader:
    """Reads the events of a run, oldest first, and later what has come since; lines that were torn are left out.

    Args:
        root: The folder of the run.
        without: Kinds of events to leave out.
    """

    def __init__(self, root: Path, *, without: Sequence[str] = ()) -> None:
        self._path = events_file(root)
        # Found without reading the line, for most lines are these.
        self._unwanted = tuple(f'"event": "{name}"'.encode() for name in without)
        self._inode: int | None = None
        self._position = 0

    def new(self) -> Iterator[dict[str, Any]]:
        """What has come since the last call; all of it the first time."""
        older = self._path.with_name(OLDER_EVENTS)
        if self._inode is None:
            yield from self._events(self._read(older, 0)[0])
        content, inode = self._read(self._path, self._position)
        if inode is not None and self._inode not in (None, inode):
            # What was read last has been put aside, perhaps with more at its end.
            rest, moved = self._read(older, self._position)
            if moved == self._inode:
                yield from self._events(rest)
            self._position = 0
            content, inode = self._read(self._path, 0)
        self._inode = inode if inode is not None else self._inode
        whole = content.rfind(b"\n") + 1  # the last line may be in the middle of its writing
        self._position += whole
        yield from self._events(content[:whole])

    @staticmethod
    def _read(path: Path, position: int) -> tuple[bytes, int | None]:
        try:
            with path.open("rb") as stream:
                stream.seek(position)
                return stream.read(), os.fstat(stream.fileno()).st_ino
        except OSError:
            return b"", None

    def _events(self, content: bytes) -> Iterator[dict[str, Any]]:
        for line in content.split(b"\n"):
            if any(name in line[:160] for name in self._unwanted):
                continue
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "event" in event:
                yield event


def _about(job: PlannedJob) -> dict[str, str]:
    return {"job": job.id, "kind": job.kind, "title": job.title, "folder": job.step.folder}


class EventLog(Observer):
    """Writes the events of one harness process.

    A line that cannot be written, on a full disk for one, is lost, and the run goes on.

    Args:
        root: The folder of the run.
        run: The id of this process.
        executor, command: Of the first line.
        most_bytes: Size at which the file is put aside.
        clock: Seconds that go on steadily.
    """

    def __init__(
        self,
        root: Path,
        run: str,
        executor: str,
        command: Sequence[str],
        *,
        most_bytes: int = _MOST_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._run = events_file(root), run
        self._about = {"executor": executor, "command": list(command)}
        self._most_bytes, self._clock = most_bytes, clock
        self._told: dict[str, float] = {}  # when each running job last had a line of progress
        self._metrics: dict[str, Any] = {}
        self._last = float("-inf")
        self._is_torn, self._has_warned = False, False

    def opened(self, jobs: Sequence[PlannedJob]) -> None:
        """The run begins."""
        self._is_torn = self._ends_torn()
        about = own()
        self._write("opened", jobs=len(jobs), **self._about, host=about["host"], pid=about["pid"])

    def started(self, attempt: Attempt) -> None:
        """A try of a job was started."""
        job, where = attempt.job, attempt.allocation
        self._told[job.id] = self._clock() - _EVERY
        self._write(
            "started",
            **_about(job),
            attempt=attempt.number,
            place=where and where.place,
            gpus=where and list(where.gpus),
        )

    def said(self, job: PlannedJob, event: Mapping[str, Any]) -> None:
        """A job advanced: a line now and then, fewer of each job where many run."""
        if event.get("event") == "metrics":
            self._metrics[job.id] = event.get("metrics")
        if event.get("event") == "started":
            self._write("running", job=job.id, host=event.get("host"), devices=event.get("devices"))
        if event.get("event") != "progress" or job.id not in self._told:
            return
        moment = self._clock()
        if moment - self._told[job.id] >= _EVERY and moment - self._last >= 1.0:
            self._told[job.id] = self._last = moment
            known = {name: event.get(name) for name in ("stage", "done", "total")}
            self._write("progress", job=job.id, **known, metrics=self._metrics.get(job.id) or {})

    def again(self, job: PlannedJob, reason: str, number: int, seconds: float) -> None:
        """A try failed."""
        self._forget(job)
        self._write("again", job=job.id, reason=reason, attempt=number, seconds=round(seconds, 3))

    def ended(self, job: PlannedJob, outcome: Outcome) -> None:
        """A job ended for good."""
        self._forget(job)
        self._write(
            "ended", **_about(job), status=outcome.status, reason=outcome.reason, seconds=round(outcome.seconds, 3)
        )

    def stopping(self, *, now: bool) -> None:
        """The run was asked to stop."""
        self._write("stopping", now=now)

    def closed(self, outcomes: Mapping[str, Outcome]) -> None:
        """The run has ended."""
        counts = Counter(outcome.status for outcome in outcomes.values())
        self._write("closed", **{status: counts[status] for status in ("done", "failed", "stopped", "not_run")})

    def _forget(self, job: PlannedJob) -> None:
        self._told.pop(job.id, None)
        self._metrics.pop(job.id, None)

    def _ends_torn(self) -> bool:
        """Whether the last line has no end: somebody was killed while writing it."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(-1, os.SEEK_END)
                return stream.read(1) != b"\n"
        except OSError:  # not there, or empty
            return False

    def _write(self, event: str, **fields: Any) -> None:
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps(
            {"time": moment, "run": self._run, "event": event, **fields}
        )  # ASCII: any text can be written
        content = ("\n" * self._is_torn + line + "\n").encode()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Opened for each line, so that a file that another process has put aside is not written on.
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                self._is_torn = os.write(descriptor, content) < len(content)
                size = os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
            if size > self._most_bytes:
                self._put_aside()
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                _logger.warning(
                    "%s: some events could not be written (%s); the run goes on", self._path, error.strerror
                )

    def _put_aside(self) -> None:
        """Begin a new file, unless another process is doing so or has just done it."""
        try:
            with FileLock(self._path.with_name("locks") / "events.lock", timeout=0):
                if self._path.stat().st_size > self._most_bytes:
                    self._path.replace(self._path.with_name(OLDER_EVENTS))
        except Timeout:
            pass
