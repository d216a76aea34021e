"""What a distillation method is: what it requires, its trainable extras, its loss terms and how they add up.

A method is one file in this folder that defines a subclass of `Method` and decorates it with `register`. Planning imports these
files, so torch is imported where they compute. Normalizers are added up over the whole optimizer step, all micro-batches and
processes, before anything is divided, so the loss does not depend on how a batch is split.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import Field, ValidationError

from dskd import losses, modeling
from dskd.errors import InputError
from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.space import EVERY_TRAINING, WITH_OWN_TEXT, WITH_PROJECTORS, Space
from dskd.options import Options
from dskd.teachers.options import TeacherOutputKind
from dskd.tokenization.vocabulary import SharedVocabulary

if TYPE_CHECKING:
    from torch import Tensor, nn


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

        chosen = name or self.divergence
        knobs = {
            "js_divergence": {"beta": self.js_beta},
            "skewed_forward_kl": {"skew": self.skew},
            "skewed_reverse_kl": {"skew": self.skew},
            "adaptive_kl": {"head_share": self.head_share},
        }
        return partial(losses.DIVERGENCES[chosen], temperature=temperature or self.temperature, **knobs.get(chosen, {}))


class DistillationOptions(DivergenceOptions):
    """What all methods that add a divergence to cross entropy share. Defaults are the paper's for instruction following."""

    kd_rate: float = Field(0.5, ge=0.0, le=1.0, description="weight α of distillation against cross entropy, 0 to 1")


@dataclass(frozen=True)
class Requirements:
    """What a method needs of a run, known before anything is loaded.

    Attributes:
        vocabulary: `same`: teacher and student must have one vocabulary.
        teacher: Whether there is a teacher.
        teacher_outputs: The kinds of teacher outputs that it can learn from; the first is the default.
        outputs_with_options: Kinds that it could learn from as well, and the options with which it can, such as
            {"top_k": "outside: one_outcome"}.
        on_policy: Whether responses that the student samples may or must take the place of the data's.
        response_source: Who wrote the responses of the data; `teacher`: asked once for each prompt, before the training.
        pairing: Which tokens of the two models a batch pairs: those on the same `bytes`, those at the same `position` of an
            example's labelled tokens, or those that the method finds by its `own` means (`UsesTokenizers`).
        chunkable: Every term is a sum over the student's labelled tokens and their pairs, so a batch may be taken in parts.
        projectors: Whether projectors between the hidden spaces are trained beside the student; for estimates.
        embeddings: Whether terms read the models' input embeddings.
        padded_hidden: Whether terms read the teacher's hidden states at all positions, prompt and padding included, which a live
            teacher and rows without packing alone can give.
        reference: Whether terms read the log-probabilities of a third, frozen model with the student's vocabulary
            (`TokenBatch.reference`).
        written_statistics: What of the weights that wrote a text terms read where those are older than the step
            (`SideTokens.written_*`): nothing, the log-probabilities of the labels, or besides the most probable tokens, so many as the
            option `top_k`.
        exact_sampling: Of a method that learns from the student's own text alone, whether it reads how probable that text was to be
            sampled, so that the rollouts must be drawn at its temperature and from the whole distribution.
        teacher_mix_in_alpha: The teacher's share in the distribution that the student's responses are sampled from.
        mix_in_offpolicy: Whether an example whose response is sampled is trained on as the data has it, too.
    """

    vocabulary: Literal["any", "same"] = "any"
    teacher: bool = True
    teacher_outputs: tuple[TeacherOutputKind, ...] = ("hidden_states",)
    outputs_with_options: Mapping[TeacherOutputKind, str] = field(default_factory=dict)
    on_policy: Literal["never", "optional", "always"] = "optional"
    response_source: Literal["data", "teacher"] = "data"
    pairing: Literal["bytes", "position", "own"] = "bytes"
    chunkable: bool = True
    projectors: bool = False
    embeddings: bool = False
    padded_hidden: bool = False
    reference: bool = False
    written_statistics: Literal["none", "log_probabilities", "top_k"] = "none"
    exact_sampling: bool = True
    teacher_mix_in_alpha: float = 0.0
    mix_in_offpolicy: bool = False

    def also_from(self, kind: TeacherOutputKind) -> Requirements:
        """The same, able to learn from a kind of `outputs_with_options`, too."""
        others = {name: options for name, options in self.outputs_with_options.items() if name != kind}
        return replace(self, teacher_outputs=(*self.teacher_outputs, kind), outputs_with_options=others)


class Method(ABC):
    """One way to train a student: `requires` says what it needs, `terms` computes the loss terms, `objective` adds them up.

    Attributes:
        name: How a matrix and an identity call it.
        title, paper: For tables.
        not_reproduced: What of the paper or its code is not here, in a sentence.
        requires: May depend on the options; then `__init__` sets it anew.
        space: What of its options is tuned, and over which values (dskd/methods/space.py); the learning rates are tuned besides.
        options: An instance of `Options`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    not_reproduced: ClassVar[str] = ""
    requires: Requirements = Requirements()
    space: ClassVar[Space] = {}
    Options: ClassVar[type[Options]] = Options

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        """Raises InputError for an unknown option or a value out of range."""
        try:
            self.options: Any = self.Options.model_validate(options or {})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(["methods", self.name, *map(str, first["loc"])])
            message = first["msg"].removeprefix("Value error, ")
            known = ", ".join(self.Options.model_fields) or "it has none"
            fix = "" if "; fix: " in message else f"; fix: options of {self.name}: {known}"
            raise InputError(f"{where}: {message}{fix}") from None

    @property
    def whole_space(self) -> Space:
        """`space`, the learning rates of its training, and for one that learns from its own text alone how that may be sampled."""
        requires = self.requires
        samples = requires.on_policy == "always" and not requires.exact_sampling
        return {
            **EVERY_TRAINING,
            **(WITH_PROJECTORS if requires.projectors else {}),
            **(WITH_OWN_TEXT if samples else {}),
            **self.space,
        }

    def prepare(
        self, student_head: modeling.Head, teacher_head: modeling.Head, shared: SharedVocabulary
    ) -> nn.Module | None:
        """Make what is trained or kept beside the student (projectors).

        `shared` is None without a teacher, `teacher_head` also where it gives log-probabilities and not hidden states.
        """
        return None

    def on_step_begin(self, student_head: modeling.Head) -> None:  # noqa: B027 - most methods have nothing to do
        """Called before each optimizer step, before its first micro-batch."""

    @abstractmethod
    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        """The loss terms of a micro-batch; metrics go into `batch.metrics`."""

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        """The normalizers of `terms` alone, without gradient; where they cost less than the terms, a method says how."""
        import torch

        with torch.no_grad():
            return {name: term.normalizer for name, term in self.terms(batch).items()}

    def covered(self, batch: TokenBatch, terms: Mapping[str, LossTerm]) -> Tensor | None:
        """How many of the student's labelled tokens the teacher's terms teach, a float scalar; None without a teacher.

        What `grouped_share` adds up where the method has that, else the pairs. A method that teaches others says which.

        Args:
            batch: A micro-batch.
            terms: Its own; the totals are of this batch.
        """
        if not self.requires.teacher:
            return None
        if "grouped_share" in terms:
            return terms["grouped_share"].total
        return labelled_count(batch).new_full((), float(len(batch.student.pairs)))

    @abstractmethod
    def objective(self, means: dict[str, Tensor]) -> Tensor:
        """The loss: a linear combination, without a constant, of the terms divided by their normalizers."""


class DistillationMethod(Method):
    """A method whose loss is (1 − α) L_CE + α L_KD, with the option `kd_rate` for α. By default L_KD is a mean over the pairs."""

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        labelled = labelled_count(batch)
        return {"cross_entropy": labelled, "distillation": labelled.new_full((), float(len(batch.student.pairs)))}

    def cross_entropy(self, batch: TokenBatch, padded_logits: Tensor) -> LossTerm:
        """The term L_CE of the logits that L_KD is of, too. Where α = 1 leaves it no weight it takes no gradient, which is as large as they."""
        return cross_entropy(batch, padded_logits if self.options.kd_rate < 1.0 else padded_logits.detach())

    def distillation(self, means: dict[str, Tensor]) -> Tensor:
        """L_KD of the terms divided by their normalizers."""
        return means["distillation"]

    def objective(self, means: dict[str, Tensor]) -> Tensor:
        rate = self.options.kd_rate
        return (1 - rate) * means["cross_entropy"] + rate * self.distillation(means)


class StepStatistics(ABC):
    """Mixed into a method whose terms read statistics of each token that depend on the whole optimizer step.

    Attributes:
        needed: Whether they do with the options that the method has.
        instead: What to do where there can be no statistics of a step.
    """

    needed: bool = True
    instead: ClassVar[str] = "use another method"

    @abstractmethod
    def precompute_step(self, batches: Sequence[TokenBatch], total: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """`per_token_statistics` of each micro-batch of a step; `total` adds up over all processes. Hidden states without dropout."""


def reads_step_statistics(method: Method) -> bool:
    """Whether `precompute_step` is to be called before each step."""
    return isinstance(method, StepStatistics) and method.needed


class ResponseStatistics(ABC):
    """Mixed into a method whose terms read statistics of each token that depend on the whole response, of one micro-batch alone.

    They are computed from the hidden states of the very forward that they belong to, before the loss is taken in chunks.
    """

    @abstractmethod
    def response_statistics(self, batch: TokenBatch) -> Tensor | None:
        """`per_token_statistics` [tokens, statistics] of a micro-batch, without gradient; None where the options need none."""


class UsesTokenizers(ABC):
    """Mixed into a method that reads the tokenizers themselves. `use_tokenizers` is called before `prepare`."""

    @abstractmethod
    def use_tokenizers(self, student: Any, teacher: Any) -> None:
        """The two transformers tokenizers."""

    def pair(self, student: Sequence[int], teacher: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """For `pairing` `own`: indices of the aligned labels of an example, of the student and of the teacher, ascending."""
        raise NotImplementedError


def cross_entropy(batch: TokenBatch, padded_logits: Tensor) -> LossTerm:
    """−Σ log softmax(z)[label] over the student's labelled tokens (docs/method.md), at temperature 1.

    `padded_logits` [tokens, head rows] are the student's, of all rows of its head, so training pushes padded rows down, too.
    Tokens that the student sampled are not ground truth: they add 0 to the sum but still count, so that the weight of a data token
    relative to the other terms does not depend on the on-policy share.
    """

    labels = batch.student.labels
    if batch.student.sampled is not None:
        labels = labels.masked_fill(batch.student.sampled, -1)
    total, hits = losses.cross_entropy_and_hits(padded_logits, labels)
    batch.metrics["student_accuracy"] = LossTerm(hits, (labels >= 0).sum().float())
    return LossTerm(total, labelled_count(batch))


def logits_of_teacher(batch: TokenBatch) -> Tensor:
    """The teacher's logits at the pairs [pairs, teacher vocabulary], without gradient."""
    import torch

    with torch.no_grad():
        return batch.teacher.head.logits(batch.teacher.hidden[batch.teacher.pairs])


def top_k_of_teacher(batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """(ids, log p) of the teacher's most probable tokens at the pairs, both [pairs, k].

    As metrics how often the first is the teacher's label, and the mean probability of all tokens that are not among them.
    """
    teacher = batch.teacher
    assert teacher.top_k_ids is not None
    ids, log_p = teacher.top_k_ids[teacher.pairs], teacher.top_k_log_probabilities[teacher.pairs].float()
    predictions_of_teacher(batch, None)
    tail = (1.0 - log_p.exp().sum(-1)).clamp_min(0.0)
    batch.metrics["teacher_tail_mass"] = LossTerm(tail.sum(), tail.new_full((), float(len(tail))))
    return ids, log_p


def predictions_of_teacher(batch: TokenBatch, teacher_logits: Tensor | None) -> Tensor:
    """argmax Z at the pairs [pairs], and as a metric how often it is the teacher's label; a cache knows it without the logits."""
    teacher = batch.teacher
    if teacher.predictions is not None:
        predictions = teacher.predictions[teacher.pairs]
    elif teacher.top_k_ids is not None:
        predictions = teacher.top_k_ids[teacher.pairs, 0]
    else:
        assert teacher_logits is not None
        predictions = losses.argmax_of_rows(teacher_logits)
    if teacher.labels is not None:
        hits = (predictions == teacher.labels[teacher.pairs]).sum().float()
        batch.metrics["teacher_accuracy"] = LossTerm(hits, hits.new_full((), float(len(predictions))))
    return predictions


def labelled_count(batch: TokenBatch) -> Tensor:
    """The number of the student's labelled tokens, a float scalar on their device."""
    return batch.student.labels.new_full((), len(batch.student.labels)).float()


METHODS: dict[str, type[Method]] = {}
M = TypeVar("M", bound=type[Method])


def register(method: M) -> M:
    """Class decorator: make a method known by its name."""
    METHODS[method.name] = method
    return method
