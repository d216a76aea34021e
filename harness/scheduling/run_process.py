"""The harness processes of a run: `DIR/.harness/runs/<run id>/`, so that others know what each was to do and whether it lives.

`run.json` says which process it is and which jobs it runs. `beat` holds a number that grows every five seconds, for machines that
cannot ask for a process of another one. `closed` is there once it ended by itself. Folders of processes that have ended are removed but
for the newest.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from harness.planning.plan import PlannedJob
from harness.runs.store import now
from harness.runs.which_process import lives, own
from harness.scheduling.observer import Observer
from harness.scheduling.outcome import Outcome

BEAT_SECONDS = 5.0
_KEPT = 10


class JobOfRun(BaseModel):
    """A job that a harness process runs. outputs: the folders that it makes."""

    id: str
    kind: str
    title: str
    folder: str
    outputs: list[str]
    needs: list[str] = []


class RunProcess(BaseModel):
    """`run.json` of a harness process. host, machine, pid, born: harness.runs.which_process; started: UTC by the clock of the host."""

    run: str
    host: str
    machine: str
    pid: int
    born: float | None = None
    started: str
    executor: str
    command: list[str]
    name: str = ""
    jobs: list[JobOfRun]

    @property
    def lives(self) -> bool | None:
        """Whether the process lives; None where only another machine could say."""
        return lives(self.machine, self.pid, self.born)


def new_run_id() -> str:
    """An id of a harness process; later ones sort behind earlier ones."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def run_folders(root: Path) -> list[Path]:
    """The folders of the harness processes of a run, the newest first."""
    try:
        found = [path for path in (root / ".harness" / "runs").iterdir() if path.is_dir()]
    except OSError:
        return []
    return sorted(found, key=lambda path: path.name, reverse=True)


def read_run_process(folder: Path) -> RunProcess | None:
    """The process of such a folder; None where it cannot be read."""
    try:
        return RunProcess.model_validate_json((folder / "run.json").read_bytes())
    except (OSError, ValueError):
        return None


class RunFolder(Observer):
    """Keeps the folder of this harness process. Where it cannot be written, the run goes on.

    Args:
        root: The folder of the run.
        run: The id of this process.
        executor, command, name: What is told of it; `name` is that of the matrix.
    """

    def __init__(self, root: Path, run: str, executor: str, command: Sequence[str], name: str = "") -> None:
        self._root, self._run = root, run
        self._executor, self._command, self._name = executor, list(command), name
        self._folder = root / ".harness" / "runs" / run
        self._beat, self._last = 0, float("-inf")

    def opened(self, jobs: Sequence[PlannedJob]) -> None:
        """The run begins with these jobs."""
        told = [
            JobOfRun(
                id=job.id,
                kind=job.kind,
                title=job.title,
                folder=job.step.folder,
                outputs=[output.folder for output in job.wanted],
                needs=list(job.needs),
            )
            for job in jobs
        ]
        process = RunProcess(
            **own(),
            run=self._run,
            started=now(),
            executor=self._executor,
            command=self._command,
            name=self._name,
            jobs=told,
        )
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished = self._folder / ".run.json"
            unfinished.write_text(json.dumps(process.model_dump()) + "\n", encoding="ascii")  # any text can be written
            unfinished.replace(self._folder / "run.json")
            self._remove_old()
        self.tick()

    def tick(self) -> None:
        """Beat, every few seconds."""
        moment = time.monotonic()
        if moment - self._last >= BEAT_SECONDS:
            self._last, self._beat = moment, self._beat + 1
            with contextlib.suppress(OSError):
                (self._folder / "beat").write_text(f"{self._beat}\n", encoding="ascii")

    def closed(self, outcomes: Mapping[str, Outcome]) -> None:
        """The run has ended."""
        with contextlib.suppress(OSError):
            (self._folder / "closed").write_text(f"{now()}\n", encoding="ascii")

    def _remove_old(self) -> None:
        for folder in run_folders(self._root)[_KEPT:]:
            process = read_run_process(folder)
            if (folder / "closed").exists() or (process is not None and process.lives is False):
                shutil.rmtree(folder, ignore_errors=True)
