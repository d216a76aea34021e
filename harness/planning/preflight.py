"""What can only be known by opening the user's files, checked before a run writes anything.

Slower than planning, because tokenizers are loaded: only what a run is about to use is checked, and nothing where there is
nothing to do.
"""

from __future__ import annotations

from dskd.errors import InputError
from harness import tasks
from harness.planning.plan import Plan
from harness.runs.store import require_writable


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
    for job in plan.to_run:
        for problem in job.step.preflight(plan.root):
            raise InputError(problem.text(f"{plan.source}: {plan.place(job.step, problem.key)}"))
