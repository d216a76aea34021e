"""What an executor is: it starts jobs somewhere, says what they report and how they end, and stops them.

It knows nothing of the graph, of tries or of people: `harness.scheduling.runner` does. A file `harness/executors/<name>.py` has a class
`Executor` that derives from `BaseExecutor`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from harness.planning.plan import PlannedJob

TRIES = 3  # of a job whose failure may pass


@dataclass(frozen=True)
class Place:
    """A machine, or what this process may use of it. gpus: how many; memory: bytes."""

    name: str
    cpus: int
    gpus: int
    memory: int


@dataclass(frozen=True)
class Allocation:
    """What the scheduler has set aside for a job.

    Attributes:
        place: The name of the place.
        cpus: Threads of the job.
        gpus: The numbers of its GPUs, counted from 0 in that place; a GPU that it shares is among them.
    """

    place: str
    cpus: int
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class Attempt:
    """One try of a job.

    Attributes:
        job: What is to be run; `job.resources` is what it needs.
        number: 1 for the first try.
        split_batches: Parts in which a training computes each micro-batch; more than 1 after it ran out of memory.
        allocation: Where; None if the executor places jobs itself.
        after: Ids of jobs that have to end well first, for an executor that `takes_dependencies`; none elsewhere.
    """

    job: PlannedJob
    number: int = 1
    split_batches: int = 1
    allocation: Allocation | None = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Said:
    """A message of a running job: `event` is progress, started, waiting or metrics (harness.runs.job_context.ProgressChannel)."""

    job: str
    event: Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """The end of a try.

    Attributes:
        job: The id of the job.
        code: Its exit code (harness.runs.job_spec): 0 done; negative: the number of the signal that ended it.
        reason: One line for a person; empty where it is done.
        kind: `out_of_memory` where that was the reason.
        retry: Whether another try may pass.
        seconds: Wall time of the try.
    """

    job: str
    code: int
    reason: str = ""
    kind: str = ""
    retry: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Settings:
    """What a run tells its executor.

    Attributes:
        root: The folder of the run.
        jobs: The most jobs at once; None for as many as there is room for.
        offline: Whether jobs may not use the hub.
        options: Of this kind of executor, `Executor.Options`.
        gpus: The number of GPUs to count with, in place of those that are found.
        tries: How often a job is tried whose failure may pass, for an executor that tries again without us.
    """

    root: Path
    jobs: int | None = None
    offline: bool = True
    gpus: int | None = None
    tries: int = TRIES
    options: BaseModel | None = field(default=None)


class Detached(Exception):
    """Raised by `poll`: all is handed over to a queue that goes on without this process, and the user wants to leave."""


class ExecutorOptions(BaseModel):
    """Options of a kind of executor, given by `--executor-option KEY=VALUE`."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BaseExecutor:
    """Starts jobs somewhere.

    Class attributes: `Options`, the options of this kind; `takes_dependencies`, whether jobs are handed over before what they need has
    ended (a queue of its own knows the order); `shared_disk`, whether jobs run on several machines that share the run's folder, so
    that their locks are leases.
    """

    Options: ClassVar[type[ExecutorOptions]] = ExecutorOptions
    takes_dependencies: ClassVar[bool] = False
    shared_disk: ClassVar[bool] = False
    usual_cpus: int = (
        1  # threads of a job that does not say: results on a CPU depend on them, so not on the number of jobs
    )

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def check(self, jobs: Sequence[PlannedJob]) -> None:
        """InputError where these jobs can never run here; called before anything is written."""

    def open(self) -> None:
        """Get ready: connect, or start helpers."""

    def places(self) -> list[Place] | None:
        """The places that the scheduler fills; None if the executor, or a cluster behind it, places jobs itself."""
        return None

    def adopt(self, jobs: Sequence[PlannedJob]) -> set[str]:
        """Ids of those jobs that an earlier run has handed over and that still wait or run; they are watched from now on."""
        return set()

    def start(self, attempt: Attempt) -> None:
        """Start a try, or hand it over. OSError where that is impossible for this job."""
        raise NotImplementedError

    def poll(self, seconds: float) -> Iterator[Said | Ended]:
        """What happened; waits for so many seconds at most."""
        raise NotImplementedError

    def stop(self, job: str, *, now: bool) -> None:
        """Ask a running job to end at its next checkpoint, or end it `now`; its end is told by `poll`."""
        raise NotImplementedError

    def close(self) -> None:
        """End what still runs and everything that was started; called in any case."""
