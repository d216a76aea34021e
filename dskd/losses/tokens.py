"""What a loss sees of a micro-batch: the labelled tokens of both models, flat, so that padding cannot matter. Nothing here imports torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from dskd.modeling.lm_head import Head

_ABSENT: Any = None  # the value of what nobody filled in: a method reads what it requires and nothing else
_ON_HOST = {"on_host": True}  # stays in the memory of the CPU, where a step reads it without waiting for a device


@dataclass(frozen=True)
class LossTerm:
    """A sum over tokens, and the number that it is divided by once that is added up over the whole step. Both are scalars."""

    total: Tensor
    normalizer: Tensor

    def plus(self, other: LossTerm) -> LossTerm:
        """Both sums and both numbers added up."""
        return LossTerm(self.total + other.total, self.normalizer + other.normalizer)


@dataclass
class SideTokens:
    """One model's part of a micro-batch. What a run does not need is None, whatever the type says.

    The collator fills in the first part, the models the second. `tokens` are the labelled ones, example by example.

    Attributes:
        input_ids, position_ids: [rows, width].
        attention_mask: [rows, width]; None for packed rows, where positions that begin again at 0 tell examples apart.
        labelled: [tokens], flat positions in `input_ids` whose hidden states predict the labels.
        labels: [tokens].
        inputs: [tokens], the token at the position that predicts the label.
        size: Tokens of all examples, prompts included, padding not.
        sizes: [turns], labelled tokens of each: of an example's response, or of each turn of a conversation that is trained on.
        pairs: [pairs], indices of the tokens that are aligned with the other model's; ascending for the student.
        pairs_on_host: The student's `pairs` in the memory of the CPU.
        groups: [tokens], number of the byte group (dskd.tokenization.alignment.byte_groups), -1 where a token has none.
        sampled: [tokens], whether the student itself wrote the label; None where it wrote none.
        cache_rows: [turns], where each stands in a teacher cache.
        requested: What a served teacher was asked for this batch and may still be answering.
        head: The output head.
        hidden: [tokens, hidden], inputs of the head; the student's with gradient.
        padded_hidden: [rows, width, hidden], of all positions, for methods that require it.
        embedding: [vocabulary, hidden], input embeddings without gradient, for methods that require them.
        predictions: [tokens], the most probable tokens where a cache knows them.
        top_k_ids, top_k_log_probabilities: [tokens, k], descending, in place of hidden states, at the method's temperature; an id is
            -1 and its log-probability minus infinity, after all others, where the teacher gave fewer tokens.
        label_log_probabilities: [tokens], of the labels, in place of hidden states.
        per_token_statistics: [tokens, statistics], what the method computed before the step.
        written_log_probabilities: [tokens], log q of the labels by the weights that wrote the text, at temperature 1; 0 for text of the
            data. None where those are the weights as they are.
        written_top_k_ids, written_top_k_log_probabilities: [tokens, k], descending, by the same weights, for methods that require it.
    """

    input_ids: Tensor = _ABSENT
    position_ids: Tensor = _ABSENT
    attention_mask: Tensor | None = None
    labelled: Tensor = _ABSENT
    labels: Tensor = _ABSENT
    inputs: Tensor = _ABSENT
    size: int = 0
    sizes: Tensor = field(default=_ABSENT, metadata=_ON_HOST)
    pairs: Tensor = _ABSENT
    pairs_on_host: Tensor | None = field(default=None, metadata=_ON_HOST)
    groups: Tensor = _ABSENT
    sampled: Tensor | None = None
    cache_rows: Tensor | None = field(default=None, metadata=_ON_HOST)
    requested: Any = field(default=None, metadata=_ON_HOST)
    head: Head = _ABSENT
    hidden: Tensor = _ABSENT
    padded_hidden: Tensor = _ABSENT
    embedding: Tensor = _ABSENT
    predictions: Tensor | None = None
    top_k_ids: Tensor | None = None
    top_k_log_probabilities: Tensor = _ABSENT
    label_log_probabilities: Tensor | None = None
    per_token_statistics: Tensor = _ABSENT
    written_log_probabilities: Tensor | None = None
    written_top_k_ids: Tensor | None = None
    written_top_k_log_probabilities: Tensor = _ABSENT

    def to(self, device: Any) -> SideTokens:
        """A copy on a device, but for what a step reads on the CPU."""
        import torch

        values = {f.name: getattr(self, f.name) for f in fields(self) if not f.metadata.get("on_host")}
        moved: Any = {k: value.to(device) for k, value in values.items() if isinstance(value, torch.Tensor)}
        return replace(self, **moved)

    def at_pairs(self, values: Tensor) -> Tensor:
        """values [tokens, …] at the aligned tokens [pairs, …]; no copy where every token is aligned."""
        return values if len(self.pairs) == len(values) else values[self.pairs]

    def part(self, first: int, last: int) -> SideTokens:
        """The tokens from `first` to before `last`, all pairs as they are; what is counted by example is gone."""

        def cut(values: Tensor | None) -> Any:
            return None if values is None else values[first:last]

        return replace(
            self,
            hidden=cut(self.hidden),
            labels=cut(self.labels),
            inputs=cut(self.inputs),
            sampled=cut(self.sampled),
            per_token_statistics=cut(self.per_token_statistics),
            written_log_probabilities=cut(self.written_log_probabilities),
            written_top_k_ids=cut(self.written_top_k_ids),
            written_top_k_log_probabilities=cut(self.written_top_k_log_probabilities),
            label_log_probabilities=cut(self.label_log_probabilities),
            sizes=_ABSENT,
            groups=_ABSENT,
        )


@dataclass
class TokenBatch:
    """A micro-batch of both models.

    Attributes:
        student: The student's tokens.
        teacher: The teacher's; None where the data was prepared without one.
        reference: A third, frozen model on the student's own tokens, for methods that require it: `label_log_probabilities` [tokens]
            and nothing else. None without one.
        metrics: Reported beside the terms and no part of the loss: sums with normalizers of their own.
        saved: What the first of a method's two passes leaves for the second.
        recomputable: The large part of that, which may be gone when the second pass comes.
    """

    student: SideTokens
    teacher: SideTokens = _ABSENT
    reference: SideTokens | None = None
    metrics: dict[str, LossTerm] = field(default_factory=dict)
    saved: dict[str, Tensor] = field(default_factory=dict)
    recomputable: dict[str, Tensor] = field(default_factory=dict)

    def to(self, device: Any) -> TokenBatch:
        """A copy on a device."""
        teacher, reference = self.teacher and self.teacher.to(device), self.reference and self.reference.to(device)
        return TokenBatch(self.student.to(device), teacher, reference)

    def part(self, first: int, last: int) -> TokenBatch:
        """The student's tokens from `first` to before `last` and their pairs, nothing saved or reported yet."""
        import torch

        student, teacher = self.student.part(first, last), self.teacher
        reference = self.reference and self.reference.part(first, last)
        if student.pairs is None:
            return TokenBatch(student, teacher, reference)
        host = student.pairs.cpu() if student.pairs_on_host is None else student.pairs_on_host
        begin, end = torch.searchsorted(host, torch.tensor([first, last])).tolist()
        student.pairs, student.pairs_on_host = student.pairs[begin:end] - first, host[begin:end] - first
        teacher = replace(teacher, pairs=teacher.pairs[begin:end], sizes=_ABSENT, groups=_ABSENT)
        return TokenBatch(student, teacher, reference)


class Loss(Protocol):
    """What the chunked loss needs to know of a method."""

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]: ...

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]: ...

    def objective(self, means: dict[str, Tensor]) -> Tensor: ...


class TwoPassLoss(ABC):
    """Mixed into a method whose normalizers depend on predictions: no product is computed for the sake of counting.

    `first_terms`, which one normalizer divides, give the normalizers; the chunked loss computes the rest in a second pass.
    """

    first_terms: frozenset[str]

    @abstractmethod
    def first_pass(self, batch: TokenBatch) -> dict[str, LossTerm]:
        """Every term with its normalizer; totals of the second pass's terms are zero."""

    @abstractmethod
    def second_pass(self, batch: TokenBatch) -> dict[str, Tensor]:
        """The totals of the other terms, from what the first pass left in `batch.saved` and, as far as memory lasts, `batch.recomputable`."""
