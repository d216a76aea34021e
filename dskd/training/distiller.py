"""A student with what its method trains beside it, as one module whose forward is the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dskd.losses.chunked import chunk_size, chunked_counts, chunked_loss, chunks
from dskd.losses.cross_entropy import cross_entropy_and_hits
from dskd.losses.tokens import LossTerm, SideTokens, TokenBatch
from dskd.methods.base import Method, StepStatistics
from dskd.modeling.eval_mode import evaluating
from dskd.modeling.lm_head import Head, labelled_hidden_states, output_head, whole_output_head
from dskd.teachers.teacher import Teacher
from dskd.tokenization.vocabulary import SharedVocabulary


class Distiller(nn.Module):
    """A student with what its method trains beside it. Its forward is the method's loss, so gradients of both are synchronised.

    The teacher is neither saved nor wrapped: its outputs are fetched before the step. `student_size`: the real tokens of the student's
    vocabulary; `chunked`: take the loss in chunks of tokens, where the method can.
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
        super().__init__()
        self.student: Any = student
        self.method = method
        self.teacher = teacher
        self.chunked = chunked and method.requires.chunkable
        self.chunk_tokens = chunk_tokens
        self.metrics: dict[str, LossTerm] = {}  # of the last forward, of this process
        self.student_size = student_size
        # The layers that FSDP spreads one by one; accelerate asks the outermost module for them.
        self._no_split_modules = getattr(student, "_no_split_modules", None)
        both: Any = None if teacher is None else teacher.head, shared  # None where the method requires no teacher
        self.projectors = method.prepare(self.whole_student_head(), *both)

    def whole_student_head(self) -> Head:
        """`modeling.lm_head.whole_output_head` of the student."""
        return whole_output_head(self.student, self.student_size)

    def gradient_checkpointing_enable(self, **arguments: Any) -> None:
        self.student.gradient_checkpointing_enable(**arguments)

    def request(self, batch: TokenBatch) -> None:
        """Ask the teacher for what `fetch` will need of this batch, while the batch is on the CPU."""
        if self.teacher is not None:
            self.teacher.request(batch)

    def fetch(self, batch: TokenBatch) -> TokenBatch:
        """Add the teacher's outputs at the labelled tokens of a micro-batch."""
        return batch if self.teacher is None else self.teacher.fetch(batch)

    def _with_models(self, batch: TokenBatch, head: Head, student_hidden: Tensor) -> TokenBatch:
        """The batch with what the loss reads of the models."""
        student, teacher = replace(batch.student, head=head, hidden=student_hidden), batch.teacher
        if self.method.requires.embeddings:
            student.embedding = self.student.get_input_embeddings().weight.detach()
        if self.teacher is not None:
            embedding: Any = self.teacher.embedding if self.method.requires.embeddings else None
            head_of_teacher: Any = self.teacher.head
            teacher = replace(teacher, head=head_of_teacher, embedding=embedding)
        return TokenBatch(student, teacher)

    @torch.no_grad()
    def precompute_step(
        self, batches: Sequence[TokenBatch], total: Callable[[Tensor], Tensor] = lambda sums: sums
    ) -> None:
        """Put the method's statistics of a whole step into its micro-batches; `total` adds up over processes."""
        if not isinstance(self.method, StepStatistics) or not batches:
            return
        head = self.whole_student_head()
        with evaluating(self.student):
            hidden = [labelled_hidden_states(self.student, batch.student) for batch in batches]
        whole = [self._with_models(batch, head, states) for batch, states in zip(batches, hidden, strict=True)]
        for batch, statistics in zip(batches, self.method.precompute_step(whole, total), strict=True):
            batch.student.per_token_statistics = statistics

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        """The normalizers of a micro-batch's terms. They depend on the teacher, the projectors and the student's head alone."""
        head = self.whole_student_head()
        hidden = head.weight.new_zeros(1, 1).expand(len(batch.student.labels), head.weight.shape[1])
        whole = self._with_models(batch, head, hidden)
        if self.method.requires.chunkable:
            return chunked_counts(self.method, whole, self.chunk_tokens)
        return self.method.counts(whole)

    @torch.no_grad()
    def cross_entropy(self, batch: TokenBatch) -> Tensor:
        """The student's cross entropy, added up over the labels of a micro-batch, a float64 scalar."""
        head = output_head(self.student, self.student_size)
        hidden = labelled_hidden_states(self.student, batch.student)
        whole = TokenBatch(SideTokens(head=head, hidden=hidden, labels=batch.student.labels))
        sums = torch.zeros((), dtype=torch.float64, device=hidden.device)
        for part in chunks(whole, chunk_size(whole, self.chunk_tokens)):
            logits = head.logits(part.student.hidden, padded=True)
            sums += cross_entropy_and_hits(logits, part.student.labels)[0].double()
        return sums

    def forward(self, batch: TokenBatch, totals: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, LossTerm]]:
        """(loss, {term: its sum and the step's normalizer}); `totals` are the normalizers of the step, by default of this batch."""
        hidden = labelled_hidden_states(self.student, batch.student)
        tokens = self._with_models(batch, output_head(self.student, self.student_size), hidden)
        self.metrics = tokens.metrics
        if self.chunked and len(tokens.student.labels) > chunk_size(tokens, self.chunk_tokens):
            parameters = [] if self.projectors is None else list(self.projectors.parameters())
            return chunked_loss(self.method, tokens, totals, parameters, self.chunk_tokens)
        terms = self.method.terms(tokens)
        if totals is None:
            totals = {name: term.normalizer for name, term in terms.items()}
        # A normalizer of zero (no aligned token in the whole step) belongs to a sum of zero.
        means = {name: term.total / totals[name].clamp_min(1.0) for name, term in terms.items()}
        loss = self.method.objective(means)
        return loss, {name: LossTerm(term.total.detach(), totals[name]) for name, term in terms.items()}
