"""What a distillation method is: which models it needs, its trainable extras, its loss terms and how they add up.

A method is one file in this folder that defines a subclass of `Method` and decorates it with `register`; nothing else changes.
The files import torch where they compute and not at the top, because planning and listing ask for names and options alone.

Every term is a sum over tokens with the count that normalises it. Counts are added up over the whole optimizer step, over all
micro-batches and processes, before anything is divided, so the loss does not depend on how a batch is split.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dskd.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dskd.heads import Head
    from dskd.vocabulary import SharedVocabulary


@dataclass
class LabelledTokens:
    """What a loss sees of a micro-batch: the labelled tokens alone, flat, so that padding cannot matter.

    student_hidden [tokens, hidden]: inputs of the student's head, with gradient; student_labels [tokens].
    teacher_hidden [teacher tokens, hidden], teacher_labels [teacher tokens]: of the teacher, without gradient.
    teacher_pairs, student_pairs [pairs]: indices of aligned tokens, teacher and student, in the student's order, each token once.
    student_pairs_on_host: student_pairs in the memory of the CPU, so that taking a part reads nothing from a device.
    teacher_predictions [teacher tokens]: the teacher's most probable tokens where they are known already (a cached signal).
    teacher_top_k_ids, teacher_top_k_log_probabilities [teacher tokens, k]: instead of hidden states, at the method's temperature.
    """

    student_head: Head
    student_hidden: Tensor
    student_labels: Tensor
    teacher_head: Head | None = None
    teacher_hidden: Tensor | None = None
    teacher_labels: Tensor | None = None
    teacher_pairs: Tensor | None = None
    student_pairs: Tensor | None = None
    student_pairs_on_host: Tensor | None = None
    teacher_predictions: Tensor | None = None
    teacher_top_k_ids: Tensor | None = None
    teacher_top_k_log_probabilities: Tensor | None = None
    # What the first of a method's two passes over these tokens found, for the second (Method.first_pass).
    notes: dict[str, Tensor] = field(default_factory=dict)
    # Of those, what is large and can be computed again: the second pass may find it gone.
    large_notes: dict[str, Tensor] = field(default_factory=dict)

    def part(self, first: int, last: int) -> LabelledTokens:
        """The student's labelled tokens from `first` to before `last`, and the pairs that they are in."""
        import torch

        chosen = replace(
            self,
            student_hidden=self.student_hidden[first:last],
            student_labels=self.student_labels[first:last],
            notes={},
            large_notes={},
        )
        if self.student_pairs is None or self.teacher_pairs is None:
            return chosen
        host = self.student_pairs.cpu() if self.student_pairs_on_host is None else self.student_pairs_on_host
        begin, end = torch.searchsorted(host, torch.tensor([first, last])).tolist()
        return replace(
            chosen,
            teacher_pairs=self.teacher_pairs[begin:end],
            student_pairs=self.student_pairs[begin:end] - first,
            student_pairs_on_host=host[begin:end] - first,
        )

    def at_pairs(self, values: Tensor) -> Tensor:
        """values [tokens, …] of the student at its aligned tokens [pairs, …]; no copy where every token is aligned."""
        assert self.student_pairs is not None
        return values if len(self.student_pairs) == len(values) else values[self.student_pairs]


@dataclass
class Term:
    """A sum over tokens and the number that it is to be divided by, both scalars."""

    sum: Tensor
    count: Tensor


class Options(BaseModel):
    """Options that a method takes from a matrix; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# The names in dskd.divergences, which imports torch.
DivergenceName = Literal[
    "forward_kl", "reverse_kl", "js_divergence", "skewed_forward_kl", "skewed_reverse_kl", "adaptive_kl"
]


class DistillationOptions(Options):
    """What all methods with a teacher share. Defaults are the paper's for instruction following."""

    kd_rate: float = Field(0.5, ge=0.0, le=1.0, description="weight α of distillation against cross entropy, 0 to 1")
    temperature: float = Field(2.0, gt=0.0, description="τ; divides both models' logits in the divergence")
    divergence: DivergenceName = Field("forward_kl", description="of the teacher's and the student's distributions")


class Method(ABC):
    """One way to train a student. Class attributes describe it, `terms` computes it, `objective` adds it up.

    `per_token`: every term is a sum over the student's labelled tokens (and their pairs), so a batch may be taken in parts.
    `signals`: what of the teacher it can learn from, `hidden_states` and `top_k`.
    `first_terms`: where counts depend on predictions, the terms from which they are found, all divided by one count. The fused
    loss takes them first, a second pass takes the others, and no product is done for the sake of counting.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    vocabulary: ClassVar[Literal["any", "same"]]
    needs_teacher: ClassVar[bool]
    per_token: ClassVar[bool] = True
    signals: ClassVar[tuple[str, ...]] = ("hidden_states",)
    first_terms: ClassVar[frozenset[str]] = frozenset()
    Options: ClassVar[type[Options]] = Options

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        """Raises InputError for an unknown option or a value out of range."""
        try:
            self.options: Any = self.Options.model_validate(options or {})
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            known = ", ".join(self.Options.model_fields) or "it has none"
            raise InputError(
                f"methods.{self.name}.{key}: {first['msg']}; fix: options of {self.name}: {known}"
            ) from None

    def prepare(
        self, student_head: Head, teacher_head: Head | None, shared: SharedVocabulary | None
    ) -> nn.Module | None:
        """Make what is trained or kept beside the student (projectors), or None."""
        return None

    def begin_step(self, student_head: Head) -> None:  # noqa: B027 - most methods have nothing to do
        """Called once before each optimizer step, before its first micro-batch."""

    @abstractmethod
    def terms(self, batch: LabelledTokens) -> dict[str, Term]:
        """The loss terms, and figures to report, of a micro-batch."""

    def first_pass(self, batch: LabelledTokens) -> dict[str, Term]:
        """For a method with `first_terms`: every term with its count; sums of what the second pass takes are zero."""
        raise NotImplementedError

    def second_pass(self, batch: LabelledTokens) -> dict[str, Tensor]:
        """For a method with `first_terms`: the sums of the other terms; `batch.notes` has what the first pass left.

        Of `batch.large_notes`, as much as fits into memory.
        """
        raise NotImplementedError

    def counts(self, batch: LabelledTokens) -> dict[str, Tensor]:
        """The counts of `terms` alone, without gradient; where they cost less than the terms, a method says how."""
        import torch

        with torch.no_grad():
            return {name: term.count for name, term in self.terms(batch).items()}

    @abstractmethod
    def objective(self, means: dict[str, Tensor]) -> Tensor:
        """The loss: a linear combination, without a constant, of the terms divided by their counts."""


def cross_entropy(batch: LabelledTokens, padded_logits: Tensor) -> Term:
    """−Σ log softmax(z)[label] over the student's labelled tokens (docs/method.md), at temperature 1.

    `padded_logits` [tokens, head rows] are the student's, of all rows of its head: so training pushes padded rows down as it does
    any other wrong token. They are an argument, because they are the dearest product of a step and other terms need them too.
    """
    from dskd.cross_entropy import cross_entropy_sum

    return Term(cross_entropy_sum(padded_logits, batch.student_labels), labelled_count(batch))


def labelled_count(batch: LabelledTokens) -> Tensor:
    """The number of the student's labelled tokens, a float scalar on their device."""
    import torch

    return torch.full((), float(len(batch.student_labels)), device=batch.student_labels.device)


METHODS: dict[str, type[Method]] = {}
M = TypeVar("M", bound=type[Method])


def register(method: M) -> M:
    """Class decorator: make a method known by its name."""
    METHODS[method.name] = method
    return method
