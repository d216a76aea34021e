"""Before a run: what can only be known by opening the user's files is checked, then `run.json` says which records there will be.

Slower than planning, because tokenizers are loaded: only what a run is about to use is checked, and nothing where there is
nothing to do.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from dskd.errors import InputError
from dskd.modeling.folders import check_files
from harness import tasks
from harness.config.matrix import Matrix, cells
from harness.planning.plan import Plan
from harness.results.run_file import RunFile
from harness.runs.store import RUN, eval_folder, now, require_writable, train_folder, write_text_atomic
from harness.steps.base_model import ModelFolder


def check(plan: Plan, *, allow_code_execution: bool) -> None:
    """InputError for the first thing that would make a job of this plan fail because of what it was given."""
    evaluated = {output.cell.task for job in plan.to_run for output in job.wanted if output.cell and output.cell.task}
    running = sorted(task for task in evaluated if tasks.load(task).runs_code)
    if running and not allow_code_execution:
        raise InputError(
            f"{plan.source}: tasks.{running[0]}: executes model-generated code ({', '.join(running)}); "
            "fix: pass --allow-code-execution, or exclude it with --only task=NAME"
        )
    for name in running:
        tasks.load(name).check_permission(allow_code_execution)
    require_writable(plan.root, str(plan.root))
    used = (given for job in plan.to_run for given in job.step.inputs if isinstance(given, ModelFolder))
    for folder in dict.fromkeys(given.folder for given in used):
        check_files(folder)
    for job in plan.to_run:
        for problem in job.step.preflight(plan.root):
            raise InputError(problem.text(f"{plan.source}: {plan.place(job.step, problem.key)}"))


def write_run_file(root: Path, matrix: Matrix) -> None:
    """Write `run.json` for the whole matrix, whatever part of it is run, unless it says the same already."""
    folders = []
    for cell in cells(matrix):
        if cell.student is not None:
            folders.append(train_folder(cell.folder))
        folders += [
            eval_folder(cell.folder, entry, tasks.load(matrix.task_of(entry)).version, settings.protocol.name)
            for entry, settings in matrix.tasks.items()
        ]
    content = RunFile(matrix=matrix.name, written=now(), records=folders)
    path = root / RUN
    with suppress(FileNotFoundError, ValueError):  # not there, or damaged: written anew
        before = RunFile.model_validate_json(path.read_text(encoding="utf-8"))
        if content.model_copy(update={"written": before.written}) == before:
            return
    write_text_atomic(path, content.model_dump_json(indent=2) + "\n")
