"""What can only be known by opening the user's files, checked before a run writes anything.

Slower than planning, because tokenizers are loaded: only what a run is about to use is checked, and nothing where there is
nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from harness.planning.plan import Plan, PlannedJob
from harness.runs.store import require_writable


def check(plan: Plan, *, allow_code_execution: bool) -> None:
    """InputError for the first thing that would make a job of this plan fail because of what it was given."""
    _check_code_execution(plan, allow_code_execution)
    require_writable(plan.root, str(plan.root))
    for job in plan.to_run:
        if job.spec.kind == "data":
            _check_data(plan, job)
        elif job.spec.kind == "evaluate":
            _check_evaluation(job)
        elif job.spec.kind == "train":
            _check_engine_of_rollouts(plan, job)


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
    for name in running:
        tasks.load(name).check_permission(allowed)


def _check_data(plan: Plan, job: PlannedJob) -> None:
    from dskd.data.preparation import load_examples
    from dskd.modeling.loading import load_tokenizer
    from harness.steps.data import apply_templates

    arguments = job.spec.arguments
    examples = Path(arguments["examples"])
    # Files of the run itself are made by jobs; what a job makes is not the user's mistake.
    if not _is_own(plan, examples):
        if arguments["columns"] is None:
            load_examples(examples, instructions=arguments["instructions"])
        else:
            apply_templates(examples, arguments["columns"])
    tokenizers = {
        side: load_tokenizer(Path(arguments[side]))
        for side in ("student", "teacher")
        if arguments[side] and not _is_own(plan, Path(arguments[side]))
    }
    if len(tokenizers) == 2 and _needed_by_distillation(plan, job):
        _check_shared_tokens(plan, job, tokenizers)


def _needed_by_distillation(plan: Plan, data: PlannedJob) -> bool:
    return any(data.spec.id in job.needs and job.spec.arguments.get("teacher") for job in plan.to_run)


def _check_shared_tokens(plan: Plan, job: PlannedJob, tokenizers: Mapping[str, Any]) -> None:
    """InputError for two vocabularies without a common token: no method could carry anything from one to the other."""
    from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary

    teacher, student = (Vocabulary.from_tokenizer(tokenizers[side]) for side in ("teacher", "student"))
    shared = share_vocabulary(teacher, student)
    # The ends of sequence are paired by their role; they alone say nothing.
    if any(teacher.tokens[k] is not None for k in shared.teacher_ids.tolist()):
        return
    cell = next(o.cell for j in plan.to_run for o in j.spec.outputs if job.spec.id in j.needs and o.cell is not None)
    index = next(i for i, p in enumerate(plan.matrix.pairs) if p.student == cell.student and p.teacher == cell.teacher)
    raise InputError(
        f"{plan.source}: pairs.{index}: teacher '{cell.teacher}' ({teacher.size:,} tokens) and student '{cell.student}' "
        f"({student.size:,} tokens) have no token in common; fix: use a student whose tokenizer covers the same text"
    )


def _check_engine_of_rollouts(plan: Plan, job: PlannedJob) -> None:
    from dskd.rollouts.options import RolloutOptions, require_engine

    if (rollouts := job.spec.arguments["training"]["rollouts"]) is not None:
        try:
            require_engine(RolloutOptions.model_validate(rollouts))
        except InputError as error:
            raise InputError(f"{plan.source}: training.{error}") from None


def _is_own(plan: Plan, path: Path) -> bool:
    return path.resolve().is_relative_to(plan.root.resolve())


def _check_evaluation(job: PlannedJob) -> None:
    from harness import tasks

    for task in _evaluated_tasks(job):
        tasks.load(task).docs()
