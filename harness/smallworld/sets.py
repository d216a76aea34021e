"""Which problems of a family are in which set of the world. No problem is in two, but for training sets that share prompts.

The order of a family's problems decides: the first are test items, then come the student's, then the teacher's. Sets that came later
take from what follows, so the earlier ones stay as they were. Later problems need not be like the first (a list without repetition
runs out of its rarer kinds), so further test items and validation items are taken by the kinds of the first test items, in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice
from random import Random

from harness.smallworld.code_functions import CodeFunctions
from harness.smallworld.facts import Facts
from harness.smallworld.families import Family, Problem
from harness.smallworld.word_problems import WordProblems

# Problems of each task in each set.
FIRST_TEST_SIZE = 100  # those before the student's in the order of the family, as in earlier versions
TEST_SIZE = 400
VALIDATION_SIZE = 200
STUDENT_SIZES = {"small_instruct": 300, "small_math": 400, "small_code": 300}
TEACHER_SIZES = {"small_instruct": 1130, "small_math": 1300, "small_code": 500}  # pretraining has the same prompts
FAMILIES: dict[str, Family] = {family.task: family for family in (Facts(), WordProblems(), CodeFunctions())}


@dataclass(frozen=True)
class Sets:
    """The problems of a task for testing and training; of the student's, training sets take all or the first."""

    test: tuple[Problem, ...]
    student: tuple[Problem, ...]
    teacher: tuple[Problem, ...]


@cache
def sets_of(task: str, seed: int) -> Sets:
    """The sets of a task but for validation. KeyError for an unknown task."""
    family = FAMILIES[task]
    stream = _distinct(family, family.problems(seed, Random(f"{seed}/problems/{task}")), set())
    first, student, teacher = (
        tuple(islice(stream, size)) for size in (FIRST_TEST_SIZE, STUDENT_SIZES[task], TEACHER_SIZES[task])
    )
    further = islice(_of_kinds(first, stream), TEST_SIZE - FIRST_TEST_SIZE)
    return Sets((*first, *further), student, teacher)


@cache
def validation_of(task: str, seed: int) -> tuple[Problem, ...]:
    """The validation items of a task, none of which is in another set. KeyError for an unknown task."""
    family, sets = FAMILIES[task], sets_of(task, seed)
    used = {family.prompt(problem.doc) for part in (sets.test, sets.student, sets.teacher) for problem in part}
    stream = _distinct(family, family.problems(seed, Random(f"{seed}/validation/{task}")), used)
    return tuple(islice(_of_kinds(sets.test[:FIRST_TEST_SIZE], stream), VALIDATION_SIZE))


def _distinct(family: Family, problems: Iterator[Problem], used: set[str]) -> Iterator[Problem]:
    """Problems with prompts that none before them has, and none of `used`."""
    seen = set(used)
    for problem in problems:
        prompt = family.prompt(problem.doc)
        if prompt not in seen:
            seen.add(prompt)
            yield problem


def _of_kinds(pattern: Sequence[Problem], stream: Iterator[Problem]) -> Iterator[Problem]:
    """Problems of the kinds that `pattern` has, in its order, again and again; each is the next of its kind in the stream."""
    waiting: dict[str, list[Problem]] = {}
    for wanted in cycle(pattern):
        own = waiting.setdefault(wanted.kind, [])
        while not own:
            try:
                problem = next(stream)
            except StopIteration:
                raise AssertionError(f"no more problems of the kind {wanted.kind!r}") from None
            waiting.setdefault(problem.kind, []).append(problem)
        yield own.pop(0)
