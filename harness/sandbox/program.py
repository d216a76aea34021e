"""A program to run and how it ended."""

from __future__ import annotations

from dataclasses import dataclass

HARNESS_ERROR = "harness_error"


@dataclass(frozen=True)
class Program:
    """What a model wrote, and the tests that judge it.

    `source` runs in one process. `tests` run in another, with `functions` as stand-ins: a call goes to the first process, and what
    comes back is rebuilt from plain data. `context` is trusted code that the tests use besides (imports, helpers of the prompt);
    it runs in the tests' process, before the stand-ins take their names.

    With only a `source`, running it to its end is what passes. Then the program judges itself: use it only for what is not
    written to cheat.
    """

    source: str
    tests: str = ""
    functions: tuple[str, ...] = ()
    context: str = ""


@dataclass(frozen=True)
class Execution:
    """How a program ended.

    `outcome`: passed, failed (a test's assertion, or left before its end), exception, syntax_error, timeout, memory,
    killed (by a signal) or harness_error (the program never ran). `detail` is what was raised. `seconds` is wall-clock
    time. `starved` says that it timed out because others had the processor.
    """

    outcome: str
    detail: str
    seconds: float
    starved: bool = False
