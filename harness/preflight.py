"""What can only be known by opening the user's files, checked before a run writes anything.

Slower than planning, because tokenizers are loaded: only what a run is about to use is checked, and nothing where there is
nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dskd.errors import InputError
from harness.plan import Plan, PlannedJob
from harness.store import require_writable


def check(plan: Plan, *, allow_code_execution: bool) -> None:
    """InputError for the first thing that would make a job of this plan fail because of what it was given."""
    _check_code_execution(plan, allow_code_execution)
    require_writable(plan.root, str(plan.root))
    for job in plan.to_run:
        if job.spec.kind == "data":
            _check_data(plan, job)
        elif job.spec.kind == "evaluate":
            _check_evaluation(job)


def _evaluated_tasks(job: PlannedJob) -> Iterator[str]:
    for output in job.spec.outputs:
        if output.cell is not None and output.cell.task is not None:
            yield output.cell.task


def _check_code_execution(plan: Plan, allowed: bool) -> None:
    from harness import tasks

    evaluated = {task for job in plan.to_run if job.spec.kind == "evaluate" for task in _evaluated_tasks(job)}
    running = sorted(task for task in evaluated if tasks.load(task).runs_code)
    if running and not allowed:
        raise InputError(
            f"{plan.source}: tasks.{running[0]}: {', '.join(running)} run the code that a model wrote, on this machine; "
            "pass --allow-code-execution if you accept that, or leave them out with --only task=NAME"
        )


def _check_data(plan: Plan, job: PlannedJob) -> None:
    from dskd.data import load_examples
    from dskd.models import load_tokenizer
    from harness.jobs.prepare import apply_templates

    arguments = job.spec.arguments
    examples = Path(arguments["examples"])
    # Files of the run itself are made by jobs; what a job makes is not the user's mistake.
    if not _is_own(plan, examples):
        if arguments["prompt"] is None:
            load_examples(examples)
        else:
            apply_templates(examples, arguments["prompt"], arguments["output"])
    for side in ("student", "teacher"):
        if arguments[side] and not _is_own(plan, Path(arguments[side])):
            load_tokenizer(Path(arguments[side]))


def _is_own(plan: Plan, path: Path) -> bool:
    return path.resolve().is_relative_to(plan.root.resolve())


def _check_evaluation(job: PlannedJob) -> None:
    from harness import tasks

    for task in _evaluated_tasks(job):
        tasks.load(task).docs()
