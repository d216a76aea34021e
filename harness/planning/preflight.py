"""Before a run: what can only be known by opening the user's files is checked, then `run.json` says which records there will be.

Slower than planning, because tokenizers are loaded: only what a run is about to use is checked, and nothing where there is
nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from dskd.errors import InputError
from dskd.modeling.folders import check_files, parts_of
from dskd.modeling.quantised import require_quantisation
from harness import tasks
from harness.config.matrix import Matrix
from harness.config.resolved import write_resolved
from harness.config.selection import cells_with_tasks
from harness.planning.plan import Plan
from harness.results.run_file import RunFile
from harness.runs.store import RUN, eval_folder, now, require_writable, train_folder, write_text_atomic
from harness.steps.base import Input, Step
from harness.steps.base_model import ModelFolder


def check(plan: Plan, *, allow_code_execution: bool) -> None:
    """InputError for the first thing that would make a job of this plan fail because of what it was given."""
    evaluated = {output.cell.task for job in plan.to_run for output in job.wanted if output.cell and output.cell.task}
    running = sorted(task for task in evaluated if tasks.load(task).runs_code)
    if running and not allow_code_execution:
        place = ("tasks", running[0])
        where = f"{plan.source}: tasks.{running[0]}" if plan.matrix is None else plan.matrix.where(place, plan.source)
        raise InputError(
            f"{where}: executes model-generated code ({', '.join(running)}); "
            "fix: pass --allow-code-execution, or exclude it with --only task=NAME"
        )
    for name in running:
        tasks.load(name).check_permission(allow_code_execution)
    require_writable(plan.root, str(plan.root))
    for model in _models(plan):
        if not model.is_remote:
            check_files(model.folder)
    loaded = [read for job in plan.to_run for read in job.step.loads]
    for model in dict.fromkeys(_models_in(loaded)):
        require_quantisation(parts_of(model.settings).model)
    for job in plan.to_run:
        for problem in job.step.preflight(plan.root):
            raise InputError(problem.text(plan.place(job.step, problem.key)))


def fetch(plan: Plan) -> None:
    """Download what the jobs of this plan read from the hub, where it is not in the hub's cache yet, and check it.

    Raises:
        InputError: for the first model that cannot be had, or is not what its files say.
    """
    for model in _models(plan):
        if model.is_remote:
            check_files(model.path(plan.root))


def _models(plan: Plan) -> Iterable[ModelFolder]:
    """The models, there before the run, that its jobs read."""
    return dict.fromkeys(each for job in plan.to_run for each in _models_in(job.step.inputs))


def _models_in(inputs: Iterable[Input]) -> Iterator[ModelFolder]:
    """The models that are there already among inputs of a step, and among the parts of these."""
    for each in inputs:
        if isinstance(each, ModelFolder):
            yield each
        elif not isinstance(each, Step):
            yield from _models_in(each.inputs)


def write_run_file(root: Path, matrix: Matrix) -> None:
    """Write `matrix.yaml` and `run.json` for the whole matrix, whatever part of it is run, unless they say the same already."""
    write_resolved(root, matrix)
    folders = []
    for cell, entries in cells_with_tasks(matrix).items():
        if cell.student is not None:
            folders.append(train_folder(cell.folder))
        folders += [
            eval_folder(
                cell.folder, entry, tasks.load(matrix.task_of(entry)).version, matrix.tasks[entry].protocol.name
            )
            for entry in entries
        ]
    content = RunFile(matrix=matrix.name, written=now(), records=folders)
    path = root / RUN
    with suppress(FileNotFoundError, ValueError):  # not there, or damaged: written anew
        before = RunFile.model_validate_json(path.read_text(encoding="utf-8"))
        if content.model_copy(update={"written": before.written}) == before:
            return
    write_text_atomic(path, content.model_dump_json(indent=2) + "\n")
