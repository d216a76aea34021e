"""Word problems with small numbers, in GSM8K's format: annotated steps, then `#### result`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import add, mul, sub
from random import Random

from dskd.tokenization.prompt_templates import Instruction
from harness.smallworld.facts import PEOPLE
from harness.smallworld.families import Doc, Problem

THINGS = ("apples", "books", "coins", "eggs", "stamps")
OPERATIONS: dict[str, Callable[[int, int], int]] = {"+": add, "-": sub, "*": mul}


@dataclass(frozen=True)
class _Story:
    """A wording, its operations in order, and the ranges of the numbers a, b (and c with two operations)."""

    question: str
    signs: str
    ranges: tuple[tuple[int, int], ...]


_THREE_NUMBERS = (
    "{who} has {a} {things}, buys {b} more and gives away {c}. How many {things} are left?",
    "{who} has {a} bags with {b} {things} each and buys {c} more. How many {things} does {who} have now?",
)
STORIES = (
    _Story("{who} has {a} {things} and buys {b} more. How many {things} does {who} have now?", "+", ((2, 9), (2, 9))),
    _Story("{who} finds {a} {things} and then {b} more. How many {things} does {who} have?", "+", ((2, 9), (2, 9))),
    _Story("{who} has {a} {things} and gives away {b}. How many {things} are left?", "-", ((6, 15), (2, 5))),
    _Story("{who} had {a} {things} but lost {b} of them. How many {things} are left?", "-", ((6, 15), (2, 5))),
    _Story("{who} has {a} bags with {b} {things} each. How many {things} does {who} have?", "*", ((2, 6), (2, 6))),
    _Story(_THREE_NUMBERS[0], "+-", ((2, 9), (2, 9), (2, 3))),
    _Story(_THREE_NUMBERS[1], "*+", ((2, 6), (2, 6), (2, 9))),
)


class WordProblems:
    """The family `small_math`."""

    task = "small_math"

    def problems(self, world_seed: int, rng: Random) -> Iterator[Problem]:  # sums are true in every world
        """Yield problems without end."""
        while True:
            story = rng.choice(STORIES)
            who, things = rng.choice(PEOPLE), rng.choice(THINGS)
            numbers = [rng.randint(low, high) for low, high in story.ranges]
            exact = [0] * len(story.signs)
            # One step is slightly wrong and the later steps continue from it, as a person would.
            slips = list(exact)
            slips[rng.randrange(len(slips))] = rng.choice((-3, -2, -1, 1, 2, 3))
            random_numbers = [rng.randint(low, high) for low, high in story.ranges]
            question = story.question.format(who=who, things=things, **dict(zip("abc", numbers, strict=False)))
            right, wrong, guess = (
                _answer(who, things, story.signs, numbers, _results(story, operands, added))
                for operands, added in ((numbers, exact), (numbers, slips), (random_numbers, exact))
            )
            yield Problem({"question": question, "answer": right}, f" {wrong}", f" {guess}", kind=story.question)

    def prompt(self, doc: Doc) -> str:  # as lm-eval asks
        return f"Question: {doc['question']}\nAnswer:"

    def instruction(self, doc: Doc) -> Instruction:
        return Instruction(f"{doc['question']}\nEnd with the number after ####.")

    def gold(self, doc: Doc) -> str:
        return " " + doc["answer"]


def _results(story: _Story, numbers: list[int], slips: list[int]) -> list[int]:
    """The result of every step; `slips[i]` is added to the i-th and carried over."""
    results: list[int] = []
    left = numbers[0]
    for sign, right, slip in zip(story.signs, numbers[1:], slips, strict=True):
        left = OPERATIONS[sign](left, right) + slip
        results.append(left)
    return results


def _answer(who: str, things: str, signs: str, numbers: list[int], results: list[int]) -> str:
    """One annotated line per step, then the last result."""
    lines = []
    left = numbers[0]
    for step, (sign, right, result) in enumerate(zip(signs, numbers[1:], results, strict=True)):
        sum_ = f"{left}{sign}{right}"
        start, end = (f"{who} has ", f" {things}.") if step == 0 else ("Then ", " left." if sign == "-" else " in all.")
        lines.append(f"{start}{sum_}=<<{sum_}={result}>>{result}{end}")
        left = result
    return "\n".join([*lines, f"#### {results[-1]}"])
