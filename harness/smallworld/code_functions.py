"""One-line Python functions with unit tests, in HumanEval's format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import mul
from random import Random
from typing import Any

from dskd.tokenization.prompt_templates import Instruction
from harness.smallworld.families import Doc, Problem

NAMES = ("solve", "compute", "answer", "result", "process", "apply", "transform", "helper", "value", "convert")
ARGUMENTS = {"int": ("x", "n", "number"), "list": ("xs", "items", "values"), "str": ("s", "text", "word")}
TEST_INPUTS: dict[str, tuple[Any, ...]] = {
    "int": (0, 3, 7, 12, 25),
    "list": ([5, 1, 4, 1, 9, 7, 3, 8, 2, 6, 2], [12, 3, 8, 3, 5, 10, 4, 7, 9, 6, 2, 30]),
    "str": ("Two old owls", "abcDEFghij", " A bit of tea "),
}
CONSTANTS = range(2, 10)


@dataclass(frozen=True)
class _Operation:
    """An operation on the argument `x` (and a constant `k`): in words, as an expression, and as a function to make tests from.

    The function is written independently of the expression, so that running a right answer against its tests checks both.
    """

    kind: str
    phrases: tuple[str, ...]
    expression: str
    function: Callable[[Any, int], Any]

    @property
    def takes_constant(self) -> bool:
        return "{k}" in self.expression


OPERATIONS = tuple(
    _Operation(*row)
    for row in (
        ("int", ("{x} plus {k}", "{x} increased by {k}", "the sum of {x} and {k}"), "{x} + {k}", lambda x, k: x + k),
        ("int", ("{x} minus {k}", "{x} decreased by {k}", "{x} less {k}"), "{x} - {k}", lambda x, k: x - k),
        ("int", ("{x} times {k}", "{x} multiplied by {k}", "the product of {x} and {k}"), "{x} * {k}", mul),
        ("int", ("{x} divided by {k}", "how often {k} fits into {x}"), "{x} // {k}", lambda x, k: divmod(x, k)[0]),
        ("int", ("{x} modulo {k}", "the remainder of {x} by {k}"), "{x} % {k}", lambda x, k: divmod(x, k)[1]),
        ("int", ("{x} to the power of {k}", "{x} raised to {k}"), "{x} ** {k}", lambda x, k: pow(x, k)),
        ("int", ("the larger of {x} and {k}", "{x} but at least {k}"), "max({x}, {k})", lambda x, k: x if x > k else k),
        ("int", ("the smaller of {x} and {k}", "{x} but at most {k}"), "min({x}, {k})", lambda x, k: x if x < k else k),
        ("list", ("the sum of {x}", "the total of {x}", "all of {x} added up"), "sum({x})", lambda x, _: sum(x)),
        ("list", ("the largest of {x}", "the maximum of {x}"), "max({x})", lambda x, _: sorted(x)[-1]),
        ("list", ("the smallest of {x}", "the minimum of {x}"), "min({x})", lambda x, _: sorted(x)[0]),
        ("list", ("the length of {x}", "how many {x} there are"), "len({x})", lambda x, _: sum(1 for _item in x)),
        ("list", ("{x} in ascending order", "{x} sorted"), "sorted({x})", lambda x, _: sorted(x)),
        ("list", ("{x} in reverse order", "{x} backwards"), "{x}[::-1]", lambda x, _: list(reversed(x))),
        ("list", ("the first {k} of {x}", "the {k} at the start of {x}"), "{x}[:{k}]", lambda x, k: x[:k]),
        ("list", ("the last {k} of {x}", "the {k} at the end of {x}"), "{x}[-{k}:]", lambda x, k: x[len(x) - k :]),
        ("list", ("{x} without the first {k}", "{x} after the first {k}"), "{x}[{k}:]", lambda x, k: x[k:]),
        ("list", ("how often {k} is in {x}", "the count of {k} in {x}"), "{x}.count({k})", lambda x, k: x.count(k)),
        ("str", ("{x} in upper case", "{x} in capitals"), "{x}.upper()", lambda x, _: x.upper()),
        ("str", ("{x} in lower case", "{x} in small letters"), "{x}.lower()", lambda x, _: x.lower()),
        ("str", ("the words of {x}", "{x} split at spaces"), "{x}.split()", lambda x, _: x.split()),
        ("str", ("{x} without outer spaces", "{x} trimmed"), "{x}.strip()", lambda x, _: x.strip()),
        ("str", ("{x} repeated {k} times", "{k} copies of {x}"), "{x} * {k}", lambda x, k: "".join([x] * k)),
        ("str", ("the first {k} letters of {x}", "{x} up to letter {k}"), "{x}[:{k}]", lambda x, k: x[:k]),
    )
)


class CodeFunctions:
    """The family `small_code`."""

    task = "small_code"

    def problems(self, world_seed: int, rng: Random) -> Iterator[Problem]:  # as Python is in every world
        """Yield every function once, in a random order."""
        choices = [
            (operation, phrase, name, argument, constant)
            for operation in OPERATIONS
            for phrase in operation.phrases
            for name in NAMES
            for argument in ARGUMENTS[operation.kind]
            for constant in (CONSTANTS if operation.takes_constant else (0,))
        ]
        # Operations with a constant have eight times as many functions; without weights the others would hardly occur.
        weights = [1.0 if operation.takes_constant else float(len(CONSTANTS)) for operation, *_ in choices]
        order = sorted(range(len(choices)), key=lambda i: rng.random() ** (1 / weights[i]), reverse=True)
        for number in order:
            operation, phrase, name, argument, constant = choices[number]
            prompt = f'def {name}({argument}):\n    """ Return {phrase.format(x=argument, k=constant)}.\n    """\n'
            solution = _body(operation, argument, constant)
            # A wrong body and a guess keep the constant of the question: copying it is part of the form.
            shown = constant or rng.choice(CONSTANTS)
            doc = {"prompt": prompt, "entry_point": name, "canonical_solution": solution}
            doc["test"] = _tests(operation, shown)
            peers = [peer for peer in OPERATIONS if peer.kind == operation.kind]
            others = [peer for peer in peers if not _agree(peer, operation, shown)]
            wrong, guess = (_body(rng.choice(of), argument, shown) for of in (others, peers))
            # Functions without a constant are fewer and come earlier, so without a kind later ones would be of the other sort.
            yield Problem(doc, wrong, guess, kind="constant" if operation.takes_constant else "no constant")

    def prompt(self, doc: Doc) -> str:
        return doc["prompt"]

    def instruction(self, doc: Doc) -> Instruction:
        return Instruction("Complete this Python function.", doc["prompt"])

    def gold(self, doc: Doc) -> str:
        return doc["canonical_solution"]


def _body(operation: _Operation, argument: str, constant: int) -> str:
    return f"    return {operation.expression.format(x=argument, k=constant)}\n"


def _tests(operation: _Operation, constant: int) -> str:
    calls = ((argument, operation.function(argument, constant)) for argument in TEST_INPUTS[operation.kind])
    asserts = (f"    assert candidate({argument!r}) == {result!r}\n" for argument, result in calls)
    return "def check(candidate):\n" + "".join(asserts)


def _agree(one: _Operation, other: _Operation, constant: int) -> bool:
    """Whether two operations agree on every test input, so that neither is a wrong answer for the other."""
    arguments = TEST_INPUTS[one.kind]
    return all(one.function(argument, constant) == other.function(argument, constant) for argument in arguments)
