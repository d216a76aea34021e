"""What is done, stale (why), failed or missing, and so what a run would do. Reads the run's folder and writes nothing."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dskd.errors import InputError
from harness.config.matrix import Cell, Matrix
from harness.config.matrix_file import find_matrix, read_matrix, select
from harness.planning.graph import Graph, GraphBuilder
from harness.runs.identity import differences
from harness.runs.job_spec import JobSpec, OutputSpec
from harness.runs.store import Store

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

    output: OutputSpec
    status: Status
    reason: str


@dataclass
class PlannedJob:
    """A job, the state of its outputs, and what a run would do about it."""

    spec: JobSpec
    needs: tuple[str, ...]
    outputs: list[OutputStatus]
    action: Action = "unneeded"
    reason: str = ""

    @property
    def status(self) -> Status:
        """The worst of its outputs' states."""
        order: list[Status] = ["failed", "stale", "missing", "done"]
        return min((o.status for o in self.outputs), key=order.index)


@dataclass
class Plan:
    """All jobs in order; `matrix` and `source` as they were read."""

    matrix: Matrix
    source: Path
    root: Path
    jobs: dict[str, PlannedJob]

    @property
    def to_run(self) -> list[PlannedJob]:
        """The jobs that a run would start."""
        return [job for job in self.jobs.values() if job.action == "run"]

    @property
    def blocked(self) -> list[PlannedJob]:
        """The jobs that would be needed but cannot be run."""
        return [job for job in self.jobs.values() if job.action == "blocked"]

    def counts(self) -> dict[str, int]:
        """How many outputs of the matrix's cells (trainings and evaluations) are in each state."""
        statuses = Counter(o.status for job in self.jobs.values() for o in job.outputs if o.output.cell is not None)
        return {status: statuses[status] for status in ("done", "missing", "stale", "failed")}


@dataclass(frozen=True)
class Choice:
    """The cells and tasks of a matrix that are asked for, and in `missing` what they need that is not on this machine."""

    matrix: Matrix
    source: Path
    cells: list[Cell]
    tasks: list[str]
    missing: list[str]


def choose(
    matrix_name: str,
    variables: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
    add_methods: Sequence[str] = (),
) -> Choice:
    """Read a matrix on any machine: published models and data may be missing, and the variables that say where they are.

    InputError for every other mistake; a run needs what is missing, so `make_plan` refuses it.
    """
    from harness.planning.estimate import not_here

    source = find_matrix(matrix_name)
    given = dict(variables or {})
    unknown: InputError | None = None
    try:
        matrix = read_matrix(source, given, add_methods)
    except InputError as error:
        names = re.findall(r"\$\{([^}]*)\}", source.read_text(encoding="utf-8", errors="replace"))
        unset = {name: f"${{{name}}}" for name in names if name not in given and not os.environ.get(name)}
        if not unset:
            raise
        unknown = error
        try:
            matrix = read_matrix(source, {**given, **unset}, add_methods)
        except InputError:
            raise error from None
    cells, tasks = select(matrix, only, source.name)
    try:
        missing = not_here(matrix, cells, str(source))
    except InputError:
        if unknown is not None:  # the variable would have said where that is
            raise unknown from None
        raise
    return Choice(matrix, source, cells, tasks, missing)


def make_plan(
    matrix_name: str,
    *,
    output_dir: Path | None = None,
    variables: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
    add_methods: Sequence[str] = (),
    limit: int | None = None,
    engine: str | None = None,
    overwrite: Overwrite = "stale",
    allow_code_execution: bool = False,
) -> Plan:
    """Read a matrix, look at the run's folder, and decide. InputError for every mistake in what was given."""
    source = find_matrix(matrix_name)
    matrix = read_matrix(source, variables, add_methods)
    root = output_dir or Path("runs") / matrix.name
    cells, tasks = select(matrix, only, source.name)
    builder = GraphBuilder(
        matrix,
        str(source),
        root,
        engine=engine or matrix.evaluation.engine,
        limit=limit,
        allow_code_execution=allow_code_execution,
    )
    graph = builder.build(cells, tasks)
    return Plan(matrix, source, root, decide(graph, Store(root), overwrite))


def decide(graph: Graph, store: Store, overwrite: Overwrite) -> dict[str, PlannedJob]:
    """The state of every job of a graph and the action that `overwrite` asks for.

    Trainings and evaluations are wanted for themselves, shared artifacts only where something that will run reads them.
    """
    jobs = {
        key: PlannedJob(node.spec, node.needs, [_status(output, store) for output in node.spec.outputs])
        for key, node in graph.items()
    }
    for key, node in reversed(graph.items()):
        job = jobs[key]
        wanted = [o for o in job.outputs if o.status in REMADE[overwrite]]
        is_target = node.spec.outputs[0].cell is not None
        if is_target and wanted:
            _run(job, wanted, overwrite)
        elif job.action == "unneeded" and is_target:
            kept = next((o for o in job.outputs if o.status != "done"), None)
            job.action, job.reason = "keep", f"{kept.reason}; kept by --overwrite {overwrite}" if kept else "done"
        if job.action == "run":
            _demand(job, jobs, store, overwrite)
    for key in graph:
        _block(jobs[key], jobs)
    return jobs


def _run(job: PlannedJob, outputs: Sequence[OutputStatus], overwrite: Overwrite) -> None:
    job.action, job.reason = "run", outputs[0].reason
    job.spec = job.spec.model_copy(update={"outputs": [o.output for o in outputs], "fresh": overwrite == "always"})


def _demand(job: PlannedJob, jobs: Mapping[str, PlannedJob], store: Store, overwrite: Overwrite) -> None:
    """Mark what a running job reads: it is there, or must be made first, or stands in the way."""
    for key in job.needs:
        need = jobs[key]
        (output,) = need.outputs
        if need.action in {"run", "blocked"}:
            continue
        if output.status in REMADE[overwrite]:
            _run(need, [output], overwrite)
        elif output.status == "done" and not _usable(output.output, store):
            _run(need, [OutputStatus(output.output, "missing", f"its {output.output.product} is gone")], overwrite)
        elif output.status == "done":
            need.action, need.reason = "keep", "done"
        else:
            need.action, need.reason = "blocked", f"{output.reason}; kept by --overwrite {overwrite}"


def _block(job: PlannedJob, jobs: Mapping[str, PlannedJob]) -> None:
    if job.action == "run":
        blocked = next((jobs[key] for key in job.needs if jobs[key].action == "blocked"), None)
        if blocked is not None:
            job.action, job.reason = "blocked", f"needs '{blocked.spec.title}', which is {blocked.reason}"


def _usable(output: OutputSpec, store: Store) -> bool:
    return output.product is None or (store.output(output.folder).path / output.product).exists()


def _status(output: OutputSpec, store: Store) -> OutputStatus:
    state, manifest = store.output(output.folder).state()
    if manifest is None:
        return OutputStatus(output, "missing", "not made yet")
    same = manifest.identity.hash == output.identity.hash
    if state == "interrupted":
        goes_on = "goes on from what is there" if same else "its settings changed since, so it starts again"
        return OutputStatus(output, "missing", f"interrupted; {goes_on}")
    if not same:
        changed = differences(manifest.identity.parts, output.identity.parts)
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        return OutputStatus(output, "stale", f"{changed[0] if changed else 'the hash version changed'}{more}")
    if state == "failed":
        return OutputStatus(output, "failed", f"failed: {manifest.error}")
    return OutputStatus(output, "done", "done")
