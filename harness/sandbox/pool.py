"""Runs many programs side by side, on all cores, in their order."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from harness.runs.machine import cores
from harness.sandbox.execution import run
from harness.sandbox.isolation import Isolation
from harness.sandbox.program import HARNESS_ERROR, Execution, Limits, Program


def run_all(
    jobs: Sequence[tuple[Program, Limits]],
    isolation: Isolation,
    *,
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[Execution]:
    """Run programs, each with its limits, and return how each ended; `advance` is called after each.

    A program that timed out because others had the processor, or that did not come to run at all, is run once more at the end,
    alone. An interrupt ends what runs and starts nothing more.
    """
    executions: dict[int, Execution] = {}
    again = []
    stop_reader, stop_writer = os.pipe()
    try:
        with ThreadPoolExecutor(workers or cores()) as pool:
            try:
                submitted = (pool.submit(run, program, isolation, limits, stop_reader) for program, limits in jobs)
                futures = {future: number for number, future in enumerate(submitted)}
                for future in as_completed(futures):
                    number = futures[future]
                    executions[number] = future.result()
                    if executions[number].starved or executions[number].outcome == HARNESS_ERROR:
                        again.append(number)
                    else:
                        advance()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                os.write(stop_writer, b"x")  # stays unread: every thread sees it
                raise
    finally:
        os.close(stop_reader)
        os.close(stop_writer)
    for number in again:
        program, limits = jobs[number]
        executions[number] = run(program, isolation, limits)
        advance()
    return [executions[number] for number in range(len(jobs))]
