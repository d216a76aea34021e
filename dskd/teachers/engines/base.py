"""What an engine for teacher outputs is. An engine answers questions; what is made of its answers is not its business."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Self

from torch import Tensor

from dskd.teachers.options import TeacherOutputKind
from dskd.teachers.questions import Question

# By kind of outputs, on the CPU, the positions of all questions one after the other:
#   hidden_states           {"hidden": [positions, hidden]}
#   top_k                   {"ids": [positions, k] int32, "log_probabilities": [positions, k] float32, descending}; after them, where there
#                           are fewer than k tokens, the id -1 and minus infinity
#   text_log_probabilities  {"log_probabilities": [positions] float32, of the labels}
Answers = dict[str, Tensor]


class TeacherEngine(ABC):
    """Something that runs a teacher on questions.

    Attributes:
        kind: What it gives.
    """

    kind: TeacherOutputKind = "hidden_states"

    @abstractmethod
    def ask(self, questions: Sequence[Question]) -> Future[Answers]:
        """Begin to answer these questions; several calls may be under way, each with an answer of its own.

        The future raises InputError for what the user has to change, TrainingFailed for what went wrong on the way.
        """

    def figures(self) -> dict[str, Any]:
        """What it cost besides time, such as bytes that came over a network; empty where there is nothing to say."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds. What is under way is dropped."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
