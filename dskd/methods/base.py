"""What a distillation method is: which models it needs, its trainable extras, its loss terms and how they add up.

A method is one file in this folder that defines a subclass of `Method` and decorates it with `register`; nothing else changes.
The files import torch where they compute and not at the top, because planning and listing ask for names and options alone.

Every term is a sum over tokens with the count that normalises it. Counts are added up over the whole optimizer step, over all
micro-batches and processes, before anything is divided, so the loss does not depend on how a batch is split.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import Field, ValidationError

from dskd.errors import InputError
from dskd.options import Options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dskd.modeling.lm_head import Head
    from dskd.tokenization.vocabulary import SharedVocabulary


@dataclass
class LabelledTokens:
    """What a loss sees of a micro-batch: the labelled tokens alone, flat, so that padding cannot matter.

    student_hidden [tokens, hidden]: inputs of the student's head, with gradient; student_labels [tokens].
    teacher_hidden [teacher tokens, hidden], teacher_labels [teacher tokens]: of the teacher, without gradient.
    teacher_pairs, student_pairs [pairs]: indices of aligned tokens, teacher and student, in the student's order, each token once.
    student_pairs_on_host: student_pairs in the memory of the CPU, so that taking a part reads nothing from a device.
    teacher_predictions [teacher tokens]: the teacher's most probable tokens where they are known already (a cached signal).
    teacher_top_k_ids, teacher_top_k_log_probabilities [teacher tokens, k]: instead of hidden states, at the method's temperature.
    student_sizes, teacher_sizes [examples]: labelled tokens of each example, in the memory of the CPU; tokens follow in this order.
    student_inputs [tokens], teacher_inputs [teacher tokens]: the token at the position that predicts the label.
    student_sampled [tokens]: whether the student itself wrote the label (dskd/rollouts/rollouts.py); None where it wrote none.
    student_scores [tokens, scores]: what the method found out about each label before the step (Method.scores).
    student_groups [tokens], teacher_groups [teacher tokens]: number, ascending, of the smallest stretch of bytes that begins and
    ends at token ends of both models; -1 where a token covers no bytes. An example's end tokens are a group of their own.
    student_embedding, teacher_embedding [rows, hidden]: input embeddings, without gradient, where the method wants them.
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
    student_sizes: Tensor | None = None
    teacher_sizes: Tensor | None = None
    student_inputs: Tensor | None = None
    teacher_inputs: Tensor | None = None
    student_sampled: Tensor | None = None
    student_scores: Tensor | None = None
    student_groups: Tensor | None = None
    teacher_groups: Tensor | None = None
    student_embedding: Tensor | None = None
    teacher_embedding: Tensor | None = None
    # What is reported beside the terms and is no part of the loss: a sum and its own count, of these tokens alone.
    figures: dict[str, Term] = field(default_factory=dict)
    # What the first of a method's two passes over these tokens found, for the second (Method.first_pass), and teacher_statistics.
    notes: dict[str, Tensor] = field(default_factory=dict)
    # Of those, what is large and can be computed again: the second pass may find it gone.
    large_notes: dict[str, Tensor] = field(default_factory=dict)

    def part(self, first: int, last: int) -> LabelledTokens:
        """The student's labelled tokens from `first` to before `last`, and the pairs that they are in; no sizes and groups."""
        import torch

        chosen = replace(
            self,
            student_hidden=self.student_hidden[first:last],
            student_labels=self.student_labels[first:last],
            student_inputs=None if self.student_inputs is None else self.student_inputs[first:last],
            student_sampled=None if self.student_sampled is None else self.student_sampled[first:last],
            student_scores=None if self.student_scores is None else self.student_scores[first:last],
            student_sizes=None,
            teacher_sizes=None,
            student_groups=None,
            teacher_groups=None,
            figures={},
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


# The names in dskd.losses.divergences, which imports torch.
DivergenceName = Literal[
    "forward_kl",
    "reverse_kl",
    "js_divergence",
    "skewed_forward_kl",
    "skewed_reverse_kl",
    "adaptive_kl",
    "total_variation",
]


class DivergenceOptions(Options):
    """The divergence of a method and its own parameters; those of the others are not looked at."""

    temperature: float = Field(2.0, gt=0.0, description="τ; divides both models' logits in the divergence")
    divergence: DivergenceName = Field("forward_kl", description="of the teacher's and the student's distributions")
    js_beta: float = Field(0.5, ge=0.0, le=1.0, description="β of js_divergence; weighs the teacher, as in GKD")
    skew: float = Field(0.1, ge=0.0, lt=1.0, description="λ of skewed_forward_kl and skewed_reverse_kl")
    head_share: float = Field(
        0.5, gt=0.0, lt=1.0, description="probability that the head of adaptive_kl holds at least"
    )

    def distance(
        self, name: DivergenceName | None = None, temperature: float | None = None
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """(teacher_logits, student_logits) -> [tokens]: the divergence, or the one named, at the temperature, or the one given."""
        from dskd.losses.divergences import DIVERGENCES

        chosen = name or self.divergence
        knobs = {
            "js_divergence": {"beta": self.js_beta},
            "skewed_forward_kl": {"skew": self.skew},
            "skewed_reverse_kl": {"skew": self.skew},
            "adaptive_kl": {"head_share": self.head_share},
        }
        return partial(DIVERGENCES[chosen], temperature=temperature or self.temperature, **knobs.get(chosen, {}))


class DistillationOptions(DivergenceOptions):
    """What all methods that add a divergence to cross entropy share. Defaults are the paper's for instruction following."""

    kd_rate: float = Field(0.5, ge=0.0, le=1.0, description="weight α of distillation against cross entropy, 0 to 1")


class Method(ABC):
    """One way to train a student. Class attributes describe it, `terms` computes it, `objective` adds it up.

    `policy`: on which text it learns: `off` the data's, `on` the student's own, `either`.
    `labels`: who wrote the responses that it learns from, the `data` or, asked once for each prompt, the `teacher`.
    `per_token`: every term is a sum over the student's labelled tokens (and their pairs), so a batch may be taken in parts.
    `pairing`: which tokens of the two models a batch pairs: those on the same `bytes`, or those at the same `position` of an
    example's labelled tokens, or those whose spelling is the same `string` (the published code's way, for comparisons).
    `embeddings`: whether terms read the models' input embeddings.
    `teacher_statistics`: whether they read, from the batch's notes, of the teacher's whole padded micro-batch `teacher_positions`,
    how many it has, and `teacher_hidden_deviation`, the standard deviation of all its hidden states; a live teacher alone knows.
    `signals`: what of the teacher it can learn from, `hidden_states` and `top_k`.
    `first_terms`: where counts depend on predictions, the terms from which they are found, all divided by one count. The fused
    loss takes them first, a second pass takes the others, and no product is done for the sake of counting.
    `scored`: whether terms read what `scores` finds out before each optimizer step.
    `teacher_mix`: the teacher's share in the distribution that the student's text is sampled from.
    `keeps_data`: whether an example whose response the student writes is trained on as the data has it, too.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    vocabulary: ClassVar[Literal["any", "same"]]
    needs_teacher: ClassVar[bool]
    policy: ClassVar[Literal["off", "on", "either"]] = "either"
    labels: ClassVar[Literal["data", "teacher"]] = "data"
    not_reproduced: ClassVar[str] = ""  # what of the paper or its code is not here, in a sentence
    per_token: bool = True
    pairing: Literal["bytes", "position", "string"] = "bytes"
    embeddings: ClassVar[bool] = False
    teacher_statistics: bool = False
    signals: ClassVar[tuple[str, ...]] = ("hidden_states",)
    first_terms: frozenset[str] = frozenset()
    scored: ClassVar[bool] = False
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

    @property
    def teacher_mix(self) -> float:
        return 0.0

    @property
    def keeps_data(self) -> bool:
        return False

    def prepare(
        self, student_head: Head, teacher_head: Head | None, shared: SharedVocabulary | None
    ) -> nn.Module | None:
        """Make what is trained or kept beside the student (projectors), or None."""
        return None

    def begin_step(self, student_head: Head) -> None:  # noqa: B027 - most methods have nothing to do
        """Called once before each optimizer step, before its first micro-batch."""

    def scores(self, batches: Sequence[LabelledTokens], total: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """For a method with `scored`: student_scores of each micro-batch of a step, which are whole here, without gradient.

        The student's hidden states are those without dropout. `total` adds a tensor up over all processes.
        """
        raise NotImplementedError

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

    Labels that the student wrote itself are no truth and add nothing to the sum. The count has them all the same, so that a label
    of the data weighs as much, against a label's share of the other terms, however many of its step the student wrote.
    """
    from dskd.losses.cross_entropy import cross_entropy_and_hits

    labels = batch.student_labels
    if batch.student_sampled is not None:
        labels = labels.masked_fill(batch.student_sampled, -1)
    total, hits = cross_entropy_and_hits(padded_logits, labels)
    batch.figures["student_accuracy"] = Term(hits, (labels >= 0).sum().float())
    return Term(total, labelled_count(batch))


def predictions_of_teacher(batch: LabelledTokens, teacher_logits: Tensor | None) -> Tensor:
    """argmax Z at the pairs [pairs], and how often it is the teacher's label as a figure; logits may be None where it is known."""
    if batch.teacher_predictions is not None:
        predictions = batch.teacher_predictions[batch.teacher_pairs]
    else:
        assert teacher_logits is not None
        predictions = teacher_logits.argmax(-1)
    if batch.teacher_labels is not None:
        hits = (predictions == batch.teacher_labels[batch.teacher_pairs]).sum().float()
        batch.figures["teacher_accuracy"] = Term(hits, hits.new_full((), float(len(predictions))))
    return predictions


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
