"""The interface of a family of generated tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from dskd.tokenization.prompt_templates import Instruction

Doc = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """One generated problem.

    Attributes:
        doc: a row in the format of the data set, with the right answer.
        wrong: an output in the form of the right answer that is not right.
        guess: an output drawn without regard to the question, so right only by chance.
        kind: what test and validation sets are balanced by: the wording, or the form of the function.
    """

    doc: Doc
    wrong: str
    guess: str
    kind: str


class Family(Protocol):
    """A generator of problems of one format."""

    task: str

    def problems(self, world_seed: int, rng: Random) -> Iterator[Problem]:
        """Yield problems, some perhaps twice. The facts of the world depend on `world_seed` only, the rest on `rng`.

        What is yielded first never changes: more problems come after those that were there before.
        """

    def prompt(self, doc: Doc) -> str:
        """The prompt of a problem."""

    def instruction(self, doc: Doc) -> Instruction:
        """The instruction that a model with a template gets instead."""

    def gold(self, doc: Doc) -> str:
        """The right output, as a model would write it after the prompt."""
