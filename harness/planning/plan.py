"""What is done, stale (why), failed or missing, and so what a run would do. Reads the run's folder and writes nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dskd.errors import InputError
from harness.config.matrix import Cell, Matrix
from harness.config.matrix_file import find_matrix, read_matrix, read_source, select
from harness.costs.resources import Resources
from harness.planning.checks import check_prompts, check_vocabularies
from harness.planning.estimate import not_here
from harness.planning.expand import Expansion
from harness.runs.hub_lock import HubLock
from harness.runs.identity import FileHashes, differences
from harness.runs.job_spec import JobSpec, Output
from harness.runs.store import Store
from harness.steps.base import Step, closure, kinds_of_steps, same_as
from harness.suggestions import did_you_mean

Status = Literal["done", "missing", "stale", "failed"]
Action = Literal["run", "keep", "blocked", "unneeded"]
Overwrite = Literal["never", "failed", "stale", "always"]

# Which outputs each choice makes again; what is missing is made under all of them.
REMADE: dict[Overwrite, set[Status]] = {
    "never": {"missing"},
    "failed": {"missing", "failed"},
    "stale": {"missing", "failed", "stale"},
    "always": {"missing", "failed", "stale", "done"},
}


@dataclass(frozen=True)
class OutputStatus:
    """The state of one output, with the reason in words."""

    output: Output
    status: Status
    reason: str


@dataclass
class PlannedJob:
    """A step, the state of its outputs, and what a run would do about it.

    Attributes:
        root: the folder of the run.
        needs: the ids of the jobs whose outputs it reads.
        wanted: the outputs that a run would make.
        fresh: whether they are made again although they are there.
        resources: what it needs while it runs.
    """

    step: Step
    root: Path
    needs: tuple[str, ...]
    outputs: list[OutputStatus]
    wanted: list[Output] = field(default_factory=list)
    fresh: bool = False
    resources: Resources = field(default_factory=Resources)
    action: Action = "unneeded"
    reason: str = ""

    id = same_as("step.id")
    kind = same_as("step.kind")
    title = same_as("step.title")

    @property
    def folder(self) -> Path:
        """The folder with its log."""
        return self.root / self.step.folder

    @property
    def status(self) -> Status:
        """The worst of its outputs' states."""
        order: list[Status] = ["failed", "stale", "missing", "done"]
        return min((o.status for o in self.outputs), key=order.index)

    def spec(self, *, attempt: int = 1, split_batches: int = 1, shared_disk: bool = False) -> JobSpec:
        """What its process is told."""
        return JobSpec(
            root=str(self.root.resolve()),
            step=self.step.model_dump(mode="json"),
            outputs=[output.folder for output in self.wanted],
            fresh=self.fresh,
            attempt=attempt,
            split_batches=split_batches,
            shared_disk=shared_disk,
        )


@dataclass
class Plan:
    """All jobs in order. source: the matrix file, or the command, for errors. place: what a problem is about, with the file that says it."""

    name: str
    source: str
    root: Path
    jobs: dict[str, PlannedJob]
    place: Callable[[Step, str], str]
    matrix: Matrix | None = None
    lock: HubLock = field(default_factory=HubLock)

    @property
    def to_run(self) -> list[PlannedJob]:
        """The jobs that a run would start."""
        return [job for job in self.jobs.values() if job.action == "run"]

    @property
    def blocked(self) -> list[PlannedJob]:
        """The jobs that would be needed but cannot be run."""
        return [job for job in self.jobs.values() if job.action == "blocked"]

    def reaches(self) -> dict[str, dict[str, int]]:
        """The addresses that have to be reachable for what would run, by model, each with the number of jobs that need it."""
        needed: dict[str, Counter[str]] = {}
        for job in self.to_run:
            for model, addresses in job.step.reaches.items():
                needed.setdefault(model, Counter()).update(addresses)
        return {model: dict(counts) for model, counts in needed.items()}

    def counts(self) -> dict[str, int]:
        """How many outputs of the matrix's cells (trainings and evaluations) are in each state."""
        statuses = Counter(o.status for job in self.jobs.values() for o in job.outputs if o.output.cell is not None)
        return {status: statuses[status] for status in ("done", "missing", "stale", "failed")}


@dataclass(frozen=True)
class Selection:
    """The cells and tasks of a matrix that are asked for, and in `missing` what they need that is not on this machine.

    lock: the commits of what comes from the hub.
    """

    matrix: Matrix
    source: Path
    cells: list[Cell]
    tasks: list[str]
    missing: list[str]
    lock: HubLock


def choose(
    matrix_name: str,
    variables: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
    add_methods: Sequence[str] = (),
    output_dir: Path | None = None,
    skip: Sequence[str] = (),
) -> Selection:
    """Read a matrix on any machine: published models and data may be missing, and the variables that say where they are.

    InputError for every other mistake; a run needs what is missing, so `make_plan` refuses it.
    """
    source, given = find_matrix(matrix_name), dict(variables or {})
    unknown: InputError | None = None
    try:
        matrix = read_matrix(source, given, add_methods)
    except InputError as error:
        unset = {
            name: f"${{{name}}}" for name in read_source(source).variables - given.keys() if not os.environ.get(name)
        }
        if not unset:
            raise
        unknown = error
        try:
            matrix = read_matrix(source, {**given, **unset}, add_methods)
        except InputError:
            raise error from None
    cells, tasks = select(matrix, only, source.name, skip)
    lock = HubLock(run_folder(matrix, output_dir))
    try:
        return Selection(matrix, source, cells, tasks, not_here(matrix, cells, str(source), lock), lock)
    except InputError as error:  # where a variable is not set, it would have said where that is
        raise unknown or error from None


def run_folder(matrix: Matrix, output_dir: Path | None) -> Path:
    """The folder of a matrix's run."""
    return output_dir or Path("runs") / matrix.name


def make_plan(
    matrix_name: str,
    *,
    output_dir: Path | None = None,
    variables: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    add_methods: Sequence[str] = (),
    limit: int | None = None,
    engine: str | None = None,
    overwrite: Overwrite = "stale",
    allow_code_execution: bool = False,
    verify: bool = False,
) -> Plan:
    """Read a matrix, look at the run's folder, and decide.

    verify: hash every file again, and compare it with the hash that is remembered.

    What is written is the lock alone: the commits of models and data from the hub, where they are resolved for the first time.

    Raises:
        InputError: for every mistake in what was given.
    """
    source = find_matrix(matrix_name)
    matrix = read_matrix(source, variables, add_methods)
    cells, tasks = select(matrix, only, source.name, skip)
    root = run_folder(matrix, output_dir)
    lock = HubLock(root)
    expansion = Expansion(
        matrix,
        str(source),
        hashes=FileHashes(verify=verify),
        lock=lock,
        engine=engine or matrix.evaluation.engine,
        limit=limit,
        allow_code_execution=allow_code_execution,
    )
    check_vocabularies(expansion, cells)
    check_prompts(expansion, cells, tasks)
    steps = expansion.expand(cells, tasks)
    lock.write()

    def place(step: Step, key: str) -> str:
        cell = getattr(step, "cell", None)
        return f"{source}: {key}" if cell is None or cell.student is None else expansion.where_of(cell, key)

    jobs = decide(steps, root, overwrite)
    _need(jobs.values(), matrix, str(source))
    return Plan(matrix.name, str(source), root, jobs, place, matrix, lock)


def _need(jobs: Iterable[PlannedJob], matrix: Matrix, source: str) -> None:
    """What the matrix says that jobs need, in place of estimates. InputError for a kind of job that the matrix does not have."""
    jobs = list(jobs)
    # Of a part of the matrix, not every kind has a job.
    kinds = {job.kind for job in jobs} | kinds_of_steps()
    for kind in matrix.resources:
        if kind not in kinds:
            raise InputError(
                f"{matrix.where(('resources', kind), source)}: the matrix has no such job{did_you_mean(kind, kinds)}"
            )
    for job in jobs:
        asked = matrix.resources.get(job.kind)
        if job.action == "run" and asked is not None:
            job.resources = asked.applied_to(job.resources)


def decide(steps: Iterable[Step], root: Path, overwrite: Overwrite) -> dict[str, PlannedJob]:
    """The state of every job of the closure of these steps, and the action that `overwrite` asks for.

    Trainings and evaluations are wanted for themselves, shared artifacts only where something that will run reads them.
    """
    store, remade = Store(root), REMADE[overwrite]
    jobs = {
        key: PlannedJob(step, root, tuple(need.id for need in step.needs), [_status(o, store) for o in step.outputs])
        for key, step in closure(steps).items()
    }

    def settle(job: PlannedJob, outputs: Sequence[OutputStatus], if_kept: Action) -> None:
        """Run it where outputs are to be made again; otherwise it is kept, or `if_kept` where they are not done."""
        wanted = [o for o in outputs if o.status in remade]
        kept = next((o for o in outputs if o.status not in {"done", *remade}), None)
        if kept is not None and (if_kept == "blocked" or not wanted):
            job.action, job.reason = if_kept, f"{kept.reason}; kept by --overwrite {overwrite}"
        elif wanted:
            job.action, job.reason, job.fresh = "run", wanted[0].reason, overwrite == "always"
            job.wanted = [o.output for o in wanted]
        else:
            job.action, job.reason = "keep", "done"

    for job in reversed(jobs.values()):
        if job.step.is_target and (job.action == "unneeded" or any(o.status in remade for o in job.outputs)):
            settle(job, job.outputs, "keep")
        if job.action == "run":
            # What it reads is there, or must be made first, or is in the way.
            for need in (jobs[key] for key in job.needs):
                if need.action == "unneeded":
                    settle(need, [_for_reader(status, root) for status in need.outputs], "blocked")
    for job in jobs.values():
        blocked = next((jobs[key] for key in job.needs if jobs[key].action == "blocked"), None)
        if job.action == "run" and blocked is not None:
            job.action, job.reason = "blocked", f"needs '{blocked.title}', which is {blocked.reason}"
        if job.action == "run":
            job.resources = job.step.resources()
    return jobs


def _for_reader(status: OutputStatus, root: Path) -> OutputStatus:
    """The state of an output for who reads it: missing where its product is gone."""
    output = status.output
    if status.status != "done" or (root / output.folder / (output.product or "")).exists():
        return status
    return OutputStatus(output, "missing", f"its {output.product} is gone")


def _status(output: Output, store: Store) -> OutputStatus:
    state, manifest = store.output(output.folder).state()
    if manifest is None:
        return OutputStatus(output, "missing", "not made yet")
    same = manifest.identity.hash == output.fingerprint.hash
    if state == "interrupted":
        continuation = "resumes from what is there" if same else "its settings changed since, so it starts again"
        return OutputStatus(output, "missing", f"interrupted; {continuation}")
    if not same:
        changed = differences(manifest.identity.parts, output.fingerprint.parts)
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        return OutputStatus(output, "stale", f"{changed[0] if changed else 'the hash version changed'}{more}")
    if state == "failed":
        return OutputStatus(output, "failed", f"failed: {manifest.error}")
    return OutputStatus(output, "done", "done")
