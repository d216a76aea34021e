"""Who watches a run of the command line, besides the person at it."""

from __future__ import annotations

import sys

from harness.config.secrets import command_without_secrets
from harness.planning.plan import Plan
from harness.scheduling.event_log import EventLog
from harness.scheduling.observer import Observer
from harness.scheduling.run_process import RunFolder, new_run_id
from harness.watching.page import PAGE, PageWriter
from harness.watching.watch import Watch


def observe(plan: Plan, executor: str, parallel: int | None) -> tuple[Watch, list[Observer]]:
    """What counts, and all who hear of the run, in order: the one that counts comes first.

    Args:
        plan: What is run. Only the run of a matrix gets a status page.
        executor: The name of the executor.
        parallel: The most jobs at once, where that was given.
    """
    run, command = new_run_id(), ["harness", *command_without_secrets(sys.argv[1:])]
    watch = Watch(plan.root, plan.jobs.values(), name=plan.name, executor=executor, parallel=parallel)
    observers = [
        watch,
        RunFolder(plan.root, run, executor, command, plan.name),
        EventLog(plan.root, run, executor, command),
    ]
    page = [PageWriter(plan.root / PAGE, watch)] if plan.matrix is not None else []
    return watch, [*observers, *page]
