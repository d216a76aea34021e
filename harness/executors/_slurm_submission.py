"""A submission: one call of sbatch, for one job or for an array of equal ones, and its folder.

DIR/.harness/slurm/jobs.json                 which submission each job is in, and its id in Slurm
DIR/.harness/slurm/<token>/run.sh            the script; its first lines have the command that submits it
DIR/.harness/slurm/<token>/tasks.json        the jobs, and how often each is tried
DIR/.harness/slurm/<token>/<k>.spec.json     what job k is told
DIR/.harness/slurm/<token>/<k>.state.json    how it stands, written where it runs (_slurm_task)
DIR/.harness/slurm/<token>/<k>.out           what the script printed, and Slurm itself
DIR/.harness/slurm/<token>/<k>.stop          it is to end at its next checkpoint and not to be put back
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dskd.processes import python_module
from harness.executors import _slurm_task
from harness.planning.plan import PlannedJob
from harness.runs.store import LOG, write_json_atomic, write_text_atomic
from harness.scheduling.executor import Attempt


def slurm_folder(root: Path) -> Path:
    """The folder of everything about Slurm in a run."""
    return root.resolve() / ".harness" / "slurm"


class TaskState(BaseModel):
    """How a job stands, as its node has written it.

    Attributes:
        state: `running`; `again`: back into the queue; `ended`.
        code: Its exit code; negative: a signal.
        reason: Why it failed, or is tried again.
        final: Whether it ended for good. Otherwise Slurm may run it once more, after a preemption for one.
        failures: Tries that have failed.
        stops: How often it ended at a checkpoint because its time was nearly over.
        seconds: Of all its tries.
        host: Where.
        restart: How often Slurm had put it back.
    """

    model_config = ConfigDict(frozen=True)

    state: str
    code: int = 0
    reason: str = ""
    final: bool = False
    failures: int = 0
    stops: int = 0
    seconds: float = 0.0
    host: str = ""
    restart: int = 0


def digest(job: PlannedJob) -> str:
    """What a job is to do, as a short hash: one that was handed over is the same if this is."""
    return hashlib.sha256(job.spec().model_dump_json().encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Submission:
    """Jobs that are handed over by one call of sbatch. token: the name of its folder, and Slurm's comment on the job."""

    folder: Path
    attempts: tuple[Attempt, ...]
    arguments: tuple[str, ...]

    @property
    def token(self) -> str:
        return self.folder.name

    def task_id(self, job: str, index: int) -> str:
        """The id in Slurm of one of its jobs, from that of the whole."""
        return job if len(self.attempts) == 1 else f"{job}_{index}"

    def command(self) -> list[str]:
        """The arguments of sbatch."""
        return [*self.arguments, str(self.folder / "run.sh")]


def write_submission(
    root: Path,
    attempts: Sequence[Attempt],
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    setup: Sequence[str],
    python: str | None,
    tries: int,
    restarts: int,
) -> Submission:
    """Make the folder of a submission, complete before anything is submitted.

    Args:
        root: The folder of the run.
        attempts: Its jobs.
        arguments: Those of sbatch that say what the jobs need and when they start.
        environment: Variables that the jobs get beside ours, which Slurm passes on.
        setup: Lines of shell before the job.
        python: The Python of the nodes; None for ours.
        tries: How often a job is tried whose failure may pass.
        restarts: How often a job is put back that ended at a checkpoint.
    """
    folder = slurm_folder(root) / secrets.token_hex(8)
    command = python_module("harness.jobs")
    command[0] = python or command[0]
    array = [f"--array=0-{len(attempts) - 1}"] if len(attempts) > 1 else []
    output = str(folder).replace("%", "%%") + ("/%a.out" if array else "/0.out")
    whole = (
        *arguments,
        *array,
        f"--output={output}",
        f"--comment={folder.name}",
        *("--open-mode=append", "--requeue", "--kill-on-invalid-dep=yes", "--export=ALL"),
    )
    for index, attempt in enumerate(attempts):
        spec = attempt.job.spec(attempt=attempt.number, split_batches=attempt.split_batches, shared_disk=True)
        write_text_atomic(folder / f"{index}.spec.json", spec.model_dump_json(indent=2))
    jobs = [
        {
            "id": attempt.job.id,
            "log": str(attempt.job.folder.resolve() / LOG),
            "splits_batches": attempt.job.step.splits_batches,
            "attempt": attempt.number,
            "split_batches": attempt.split_batches,
        }
        for attempt in attempts
    ]
    tasks = {"command": command, "tries": tries, "restarts": restarts, "jobs": jobs}
    write_json_atomic(folder / "tasks.json", tasks)
    submission = Submission(folder, tuple(attempts), whole)
    script = [
        "#!/bin/bash",
        "# " + shlex.join(["sbatch", *submission.command()]),
        *(f"# job {index}: {_one_line(attempt.job.title)}" for index, attempt in enumerate(attempts)),
        "set -e",
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
        *setup,
        # In place of the shell, so that the signals for the script reach it.
        f"exec {shlex.join([command[0], '-P', _slurm_task.__file__, str(folder)])} ${{SLURM_ARRAY_TASK_ID:-0}}",
    ]
    write_text_atomic(folder / "run.sh", "\n".join(script) + "\n")
    return submission


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def read_state(folder: Path, index: int) -> TaskState | None:
    """How a job stands; None where nothing is written yet, or not here yet."""
    try:
        return TaskState.model_validate_json((folder / f"{index}.state.json").read_bytes())
    except (OSError, ValidationError):
        return None


class Entry(BaseModel):
    """Where a job was handed over. slurm: its id there; None while sbatch has not answered. digest: what it is to do."""

    model_config = ConfigDict(frozen=True)

    token: str
    index: int
    slurm: str | None
    digest: str


class Book:
    """`jobs.json`: the last submission of each job of a run."""

    def __init__(self, root: Path) -> None:
        self._path = slurm_folder(root) / "jobs.json"

    def read(self) -> dict[str, Entry]:
        """The entries by job; none where there is no file, or none that can be read."""
        try:
            entries: Any = json.loads(self._path.read_text(encoding="utf-8"))["jobs"]
            return {job: Entry.model_validate(entry) for job, entry in entries.items()}
        except (OSError, ValueError, KeyError, AttributeError):
            return {}

    def add(self, entries: Mapping[str, Entry]) -> None:
        """Add or replace entries. Only under the run's lock of submissions."""
        jobs = {**self.read(), **entries}
        write_json_atomic(self._path, {"jobs": {job: entry.model_dump() for job, entry in jobs.items()}})
