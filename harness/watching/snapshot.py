"""The state of a run at one moment, as every view of it shows: counts of cells, running jobs, failures, the time left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from harness.watching.time_left import Guess

PartState = Literal["done", "running", "waiting", "failed", "skipped"]
STATES: tuple[PartState, ...] = ("done", "running", "waiting", "failed", "skipped")


def cell_of(folder: str) -> str | None:
    """The cell that an output's folder belongs to, as `teacher__student/method/seed1`; None for what several cells share."""
    if not folder.startswith("cells/"):
        return None
    name = folder.removeprefix("cells/")
    for kind in ("/eval", "/distances"):
        name = name.partition(f"{kind}/")[0].removesuffix(kind)
    return name.removesuffix("/train")


def group_of(cell: str) -> tuple[str, str]:
    """The pair and the method of a cell."""
    pair, _, rest = cell.partition("/")
    return pair, rest.partition("/")[0]


class Cells:
    """The cells of a run, each as far as its outputs are; a change costs the same however many there are.

    A cell is failed where an output failed, running where one is being made, done where all are; skipped where one will not be made
    because something that it needs failed; waiting otherwise.
    """

    def __init__(self, folders: Iterable[str] = ()) -> None:
        self._parts: dict[str, PartState] = {}  # of each output's folder
        self._counts: dict[str, Counter[PartState]] = {}  # of each cell
        self.states: dict[str, PartState] = {}
        self.by_state: Counter[PartState] = Counter()
        self.by_group: dict[tuple[str, str], Counter[PartState]] = {}
        for folder in folders:
            self.set(folder, "waiting")

    def set(self, folder: str, state: PartState) -> None:
        """An output is in this state now; what belongs to no cell is left out."""
        cell, before = cell_of(folder), self._parts.get(folder)
        if cell is None or before == state:
            return
        self._parts[folder] = state
        counts = self._counts.setdefault(cell, Counter())
        counts[state] += 1
        if before is not None:
            counts[before] -= 1
        group = self.by_group.setdefault(group_of(cell), Counter())
        for each in (self.by_state, group):
            if cell in self.states:
                each[self.states[cell]] -= 1
        self.states[cell] = now = _together(counts)
        self.by_state[now] += 1
        group[now] += 1

    def __len__(self) -> int:
        return len(self.states)


def _together(counts: Counter[PartState]) -> PartState:
    order: tuple[PartState, ...] = ("failed", "running", "skipped", "waiting")
    return next((state for state in order if counts[state]), "done")


@dataclass
class RunningJob:
    """A job that runs, or waits for another run that does it.

    Attributes:
        id, title, kind: Which one.
        cell: Its cell; None for a shared artifact.
        place: The machine.
        devices: Its GPUs, as numbers of that machine; empty without.
        attempt: Which try.
        state: starting, waiting, running; `silent` where nothing is heard of its process, `gone` where that has ended.
        seconds: Since the try began.
        stage, done, total: How far it is.
        metrics: Numbers of a training or an evaluation.
        memory, device_memory: Bytes.
        device_use: Percent.
        beat_seconds: Since its state was written; None where that is not known.
        log: Its log.
    """

    id: str
    title: str
    kind: str
    cell: str | None = None
    place: str = ""
    devices: str = ""
    attempt: int = 1
    state: str = "starting"
    seconds: float = 0.0
    stage: str = ""
    done: float | None = None
    total: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    memory: int | None = None
    device_memory: int | None = None
    device_use: float | None = None
    beat_seconds: float | None = None
    log: str = ""

    @property
    def share(self) -> float | None:
        """How much of the stage is done, 0 to 1; None where that is not known."""
        return min(1.0, self.done / self.total) if self.done is not None and self.total else None


@dataclass(frozen=True)
class Failure:
    """A job that failed for good, or one whose try failed and that will be tried again."""

    title: str
    reason: str
    log: str = ""
    cell: str | None = None


@dataclass
class Snapshot:
    """The state of a run.

    Attributes:
        name: Of the matrix.
        root: The folder.
        executor: Of the harness that runs it; of several the names.
        lives: Whether a harness runs it.
        seconds: Since that harness began.
        left: The time until it ends, estimated; None where it cannot be.
        cells: By state.
        groups: By pair and method, by state.
        running: What runs.
        failures: What failed, the last first.
        jobs_done, jobs: Of the jobs that this run has to do.
        stopping: Whether it was asked to stop.
        closed: Whether it has ended.
    """

    name: str
    root: str
    executor: str = ""
    lives: bool = True
    seconds: float = 0.0
    left: Guess | None = None
    cells: Counter[PartState] = field(default_factory=Counter)
    groups: dict[tuple[str, str], Counter[PartState]] = field(default_factory=dict)
    running: list[RunningJob] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    jobs_done: int = 0
    jobs: int = 0
    stopping: bool = False
    closed: bool = False

    @property
    def total(self) -> int:
        """The number of cells."""
        return sum(self.cells.values())

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        told = asdict(self)
        told["cells"] = {state: self.cells[state] for state in STATES}
        told["groups"] = [
            {"pair": pair, "method": method, **{state: counts[state] for state in STATES}}
            for (pair, method), counts in self.groups.items()
        ]
        return told
