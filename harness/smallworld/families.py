"""What a family of generated tasks is, and the three that there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from dskd.tokenization.prompt_templates import Instruction

Doc = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """One generated task.

    `doc` is a row in the data set's own format, with the right answer. `wrong` has the form of the right answer and is not right.
    `guess` is drawn without regard to the question: right only by chance. Both are outputs as a model would write them.
    """

    doc: Doc
    wrong: str
    guess: str


class Family(Protocol):
    """A generator of tasks of one format."""

    task: str

    def problems(self, world_seed: int, rng: Random) -> Iterator[Problem]:
        """Yield problems, some perhaps twice. What is true in the world follows from `world_seed` alone, the rest from `rng`."""

    def prompt(self, doc: Doc) -> str:
        """Return the text that a model is given."""

    def instruction(self, doc: Doc) -> Instruction:
        """Return what a model with a template is asked instead."""

    def gold(self, doc: Doc) -> str:
        """Return the output that the data set holds to be right, as a model would write it after the prompt."""


def families() -> dict[str, Family]:
    """Return the three families by task name, in the order of the tables."""
    from harness.smallworld.code_functions import CodeFunctions
    from harness.smallworld.facts import Facts
    from harness.smallworld.word_problems import WordProblems

    return {family.task: family for family in (Facts(), WordProblems(), CodeFunctions())}
