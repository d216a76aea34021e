"""A student with what its method trains beside it, as one module whose forward is the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dskd.losses.chunked import chunk_size, chunks
from dskd.losses.cross_entropy import cross_entropy_and_hits
from dskd.losses.tokens import LossTerm, SideTokens, TokenBatch
from dskd.methods.base import Method, StepStatistics
from dskd.modeling.eval_mode import evaluating
from dskd.modeling.lm_head import Head, labelled_hidden_states, output_head, whole_output_head
from dskd.teachers.teacher import Teacher
from dskd.tokenization.vocabulary import SharedVocabulary
from dskd.training.lesson import Lesson


class StudentModule(nn.Module, ABC):
    """A student with projectors beside it. Its forward is the loss, so gradients of both are synchronised.

    Teachers are neither saved nor wrapped: their outputs are fetched before the step.

    Attributes:
        method: By which the student learns.
        teacher: What knows the outputs of the teacher, or of several; None without one.
        projectors: What is trained beside the student, or None.
        metrics: Of the last forward, of this process.
    """

    method: Method
    teacher: Any
    projectors: nn.Module | None

    def __init__(self, student: Any, student_size: int, chunk_tokens: int | None) -> None:
        super().__init__()
        self.student: Any = student
        self.student_size = student_size
        self.chunk_tokens = chunk_tokens
        self.metrics: dict[str, LossTerm] = {}
        # The layers that FSDP spreads one by one; accelerate asks the outermost module for them.
        self._no_split_modules = getattr(student, "_no_split_modules", None)

    def whole_student_head(self) -> Head:
        """`modeling.lm_head.whole_output_head` of the student."""
        return whole_output_head(self.student, self.student_size)

    def gradient_checkpointing_enable(self, **arguments: Any) -> None:
        self.student.gradient_checkpointing_enable(**arguments)

    def request(self, batch: Any) -> None:
        """Ask the teacher for what `fetch` will need of this batch, while the batch is on the CPU."""
        if self.teacher is not None:
            self.teacher.request(batch)

    def fetch(self, batch: Any) -> Any:
        """Add the teacher's outputs at the labelled tokens of a micro-batch."""
        return batch if self.teacher is None else self.teacher.fetch(batch)

    @torch.no_grad()
    def cross_entropy(self, batch: Any) -> Tensor:
        """The student's cross entropy, added up over the labels of a micro-batch, a float64 scalar."""
        head = output_head(self.student, self.student_size)
        hidden = labelled_hidden_states(self.student, batch.student)
        whole = TokenBatch(SideTokens(head=head, hidden=hidden, labels=batch.student.labels))
        sums = torch.zeros((), dtype=torch.float64, device=hidden.device)
        for part in chunks(whole, chunk_size(whole, self.chunk_tokens)):
            logits = head.logits(part.student.hidden, padded=True)
            sums += cross_entropy_and_hits(logits, part.student.labels)[0].double()
        return sums

    def logged(self, means: dict[str, float], counts: Mapping[str, float]) -> dict[str, float]:
        """What is logged of the means of terms and metrics, and of the numbers that they are means of."""
        return means

    @abstractmethod
    def on_step_begin(self) -> None:
        """Called before each optimizer step, before its first micro-batch."""

    @abstractmethod
    def precompute_step(self, batches: Sequence[Any], total: Callable[[Tensor], Tensor] = lambda sums: sums) -> None:
        """Put the method's statistics of a whole step into its micro-batches; `total` adds up over processes."""

    @abstractmethod
    def counts(self, batch: Any) -> dict[str, Tensor]:
        """The normalizers of a micro-batch's terms, under the same names in the same order for every batch."""

    @abstractmethod
    def forward(self, batch: Any, totals: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, LossTerm]]:
        """(loss, {term: its sum and the step's normalizer}); `totals` are the `counts` of the step, by default of this batch."""


class Distiller(StudentModule):
    """A student that learns by a method from one teacher, or from none. `student_size`: the real tokens of its vocabulary.

    `chunked`: take the loss in chunks of tokens, where the method can.
    """

    def __init__(
        self,
        student: Any,
        method: Method,
        *,
        student_size: int,
        teacher: Teacher | None = None,
        shared: SharedVocabulary | None = None,
        chunked: bool = True,
        chunk_tokens: int | None = None,
    ) -> None:
        super().__init__(student, student_size, chunk_tokens)
        self.method = method
        self.teacher = teacher
        settings: Any = {"chunked": chunked, "chunk_tokens": chunk_tokens}
        self.lesson = Lesson(method, teacher, shared, self.whole_student_head(), **settings)
        self.projectors = self.lesson.projectors

    @property
    def chunked(self) -> bool:
        """Whether the loss is taken in chunks of tokens."""
        return self.lesson.chunked

    def on_step_begin(self) -> None:
        self.method.on_step_begin(self.whole_student_head())

    @torch.no_grad()
    def precompute_step(
        self, batches: Sequence[TokenBatch], total: Callable[[Tensor], Tensor] = lambda sums: sums
    ) -> None:
        if not isinstance(self.method, StepStatistics) or not self.method.needed or not batches:
            return
        head = self.whole_student_head()
        with evaluating(self.student):
            hidden = [labelled_hidden_states(self.student, batch.student) for batch in batches]
        whole = [
            self.lesson.with_models(batch, head, states, self.student)
            for batch, states in zip(batches, hidden, strict=True)
        ]
        for batch, statistics in zip(batches, self.method.precompute_step(whole, total), strict=True):
            batch.student.per_token_statistics = statistics

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        return self.lesson.counts(batch, self.whole_student_head(), self.student)

    def forward(self, batch: TokenBatch, totals: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, LossTerm]]:
        hidden = labelled_hidden_states(self.student, batch.student)
        head = output_head(self.student, self.student_size)
        tokens = self.lesson.with_models(batch, head, hidden, self.student)
        self.metrics = tokens.metrics
        return self.lesson.loss(tokens, totals)
