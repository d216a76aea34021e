"""Runs programs that a model wrote, each in a sandbox of its own (docs/sandbox.md).

inside/       scripts that run in the sandbox: the supervisor, the program's and the tests' processes, entering namespaces
isolation/    the ways of isolation, a file each
execution.py  one program, from outside          pool.py    many, on all cores
probes.py     the self-test                      select.py  which isolation, or a refusal
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.sandbox.pool import run_all
from harness.sandbox.program import Execution, Limits, Program
from harness.sandbox.select import sandbox

__all__ = ["Execution", "Limits", "Program", "run_programs", "sandbox"]


def run_programs(
    programs: Sequence[Program], *, limits: Limits | None = None, advance: Callable[[], None] = lambda: None
) -> list[Execution]:
    """Run programs on all cores and return how each ended, in their order; `advance` is called after each.

    InputError where nothing isolates them here.
    """
    jobs = [(program, limits or Limits()) for program in programs]
    return run_all(jobs, sandbox().isolation, advance=advance) if jobs else []
