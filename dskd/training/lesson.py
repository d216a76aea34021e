"""What one teacher adds to a student's loss: the method that learns from it, what that trains beside the student, its terms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from dskd.losses.chunked import chunk_size, chunked_counts, chunked_loss
from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import Method, labelled_count
from dskd.modeling.lm_head import Head
from dskd.teachers.teacher import Teacher
from dskd.tokenization.vocabulary import SharedVocabulary

DISTILLED_SHARE = "distilled_share"  # the metric of `Method.covered`, of all methods


class Lesson:
    """A method with its teacher.

    Args:
        method: Of this teacher alone, because it keeps what `prepare` makes.
        teacher, shared: None where the method requires no teacher.
        student_head: The student's, whole.
        chunked: Take the loss in chunks of tokens, where the method can.
        chunk_tokens: Tokens a chunk; by default by vocabulary.

    Attributes:
        projectors: What the method trains beside the student, or None.
    """

    def __init__(
        self,
        method: Method,
        teacher: Teacher | None,
        shared: SharedVocabulary | None,
        student_head: Head,
        *,
        chunked: bool = True,
        chunk_tokens: int | None = None,
    ) -> None:
        self.method = method
        self.teacher = teacher
        self.chunked = chunked and method.requires.chunkable
        self.chunk_tokens = chunk_tokens
        both: Any = None if teacher is None else teacher.head, shared
        self.projectors = method.prepare(student_head, *both)

    def with_models(self, batch: TokenBatch, head: Head, hidden: Tensor, student: Any) -> TokenBatch:
        """The batch with what the loss reads of the models; hidden [tokens, hidden] of the student, whose head and module are given."""
        own, teacher = replace(batch.student, head=head, hidden=hidden), batch.teacher
        if self.method.requires.embeddings:
            own.embedding = student.get_input_embeddings().weight.detach()
        if self.teacher is not None:
            embedding: Any = self.teacher.embedding if self.method.requires.embeddings else None
            head_of_teacher: Any = self.teacher.head
            teacher = replace(teacher, head=head_of_teacher, embedding=embedding)
        return TokenBatch(own, teacher, batch.reference)

    def counts(self, batch: TokenBatch, head: Head, student: Any) -> dict[str, Tensor]:
        """The normalizers of the terms. They depend on the teacher, the projectors and the student's head alone."""
        hidden = head.weight.new_zeros(1, 1).expand(len(batch.student.labels), head.weight.shape[1])
        whole = self.with_models(batch, head, hidden, student)
        if self.method.requires.chunkable:
            return chunked_counts(self.method, whole, self.chunk_tokens)
        return self.method.counts(whole)

    def loss(self, tokens: TokenBatch, totals: dict[str, Tensor] | None) -> tuple[Tensor, dict[str, LossTerm]]:
        """(loss, {term: its sum over these tokens, and the normalizer that divides it}).

        Args:
            tokens: With what `with_models` adds; metrics go into `tokens.metrics`, and with them the share of labelled tokens that the
                teacher's terms teach.
            totals: The normalizers of the step; by default those of these tokens.
        """
        loss, terms = self._loss(tokens, totals)
        covered = self.method.covered(tokens, terms)
        if covered is not None:
            tokens.metrics[DISTILLED_SHARE] = LossTerm(covered.detach(), labelled_count(tokens))
        return loss, terms

    def _loss(self, tokens: TokenBatch, totals: dict[str, Tensor] | None) -> tuple[Tensor, dict[str, LossTerm]]:
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
