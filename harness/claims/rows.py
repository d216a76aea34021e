"""What the answer to a claim consists of, as tables, JSON and the page have it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

ALPHA = 0.05

Answer = Literal["holds", "fails", "undecided", "no records"]


@dataclass(frozen=True)
class TestedTask:
    """The difference on one task, in points, with its own 95 % interval and number of shared items."""

    task: str
    difference: float
    ci95: tuple[float, float]
    items: int


@dataclass(frozen=True)
class Tested:
    """One test of a claim: two methods on one pair.

    Attributes:
        better, than: The methods, as records name them.
        difference: The mean over tasks of better - than, in points.
        ci95: Its interval on its own.
        ci_holm: Its interval at the level at which Holm's correction tests it: what decides.
        p_holm: Adjusted over all tests of the file.
        seeds: Of the two methods.
        seeds_needed: Of each method, for 80 % power at this level, were the observed difference true; null if it is decided, or if
            more seeds than are looked for would not suffice.
        reason: Why it is undecided, in words.
    """

    teacher: str
    student: str
    better: str
    than: str
    answer: Answer
    difference: float | None = None
    ci95: tuple[float, float] | None = None
    ci_holm: tuple[float, float] | None = None
    p_value: float | None = None
    p_holm: float | None = None
    seeds: tuple[int, int] | None = None
    items: int = 0
    excluded: int = 0
    tasks: tuple[TestedTask, ...] = ()
    seeds_needed: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class AnsweredClaim:
    """A claim with its answer.

    Attributes:
        missing: What has no records.
        command: Makes the missing records; empty if nothing is missing.
        matrix: What the matrix of that command must have, where none that ships has it.
    """

    id: str
    statement: str
    says: str
    source: str
    direction: str
    margin: float
    answer: Answer
    tests: list[Tested]
    missing: list[str] = field(default_factory=list)
    command: str = ""
    matrix: str = ""


@dataclass(frozen=True)
class Answers:
    """The answers to a file of claims.

    Attributes:
        number: Of different tests, over which p-values are corrected.
        notes: On the records.
    """

    name: str
    number: int
    claims: list[AnsweredClaim]
    notes: list[str]
