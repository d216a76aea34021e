"""Approximate likelihood matching (ALM, arXiv 2503.20083) for any two vocabularies.

Compared is how probable a stretch of bytes is that begins and ends at token ends of both models (docs/method.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from dskd import losses, modeling
from dskd.errors import InputError
from dskd.losses.tokens import LossTerm, SideTokens, TokenBatch
from dskd.methods.base import DistillationMethod, Options, Requirements, cross_entropy, labelled_count, register
from dskd.methods.space import Choice, Log, Space, Uniform
from dskd.tokenization.vocabulary import SharedVocabulary

if TYPE_CHECKING:
    from torch import Tensor


_EPSILON = 1e-6  # keeps the logarithm of a probability below zero
_TEACHER_ROWS = 1_024  # of the teacher's logits at a time, of which one or two numbers a row are kept


class AlmOptions(Options):
    """Options of ALM; defaults are those that the published code's manual recommends."""

    kd_rate: float = Field(0.5, ge=0.0, le=1.0, description="weight α of distillation against cross entropy, 0 to 1")
    binarization_temperature: float = Field(
        100.0, gt=0.0, description="T; the T-th roots of the two probabilities of a chunk are compared"
    )
    binary_divergence: Literal["binary_ce", "reverse_binary_kl", "binary_kl_temp_limit", "abs", "abs_exp"] = Field(
        "binary_ce", description="of the two probabilities; binary_kl_temp_limit and abs have no temperature"
    )
    append_space: bool = Field(
        True, description="outcome debiasing: a chunk ends only if what follows begins with white space or is special"
    )
    merge_by_space_prob: bool = Field(
        True, description="join a chunk with the next unless the teacher finds white space probable after it"
    )
    space_probability: float = Field(
        0.1, gt=0.0, lt=1.0, description="θ; how probable it must be there to end a merged chunk"
    )
    strict_pairs: bool = Field(False, description="only chunks of one token on either side; not with merging")

    @model_validator(mode="after")
    def _strict_pairs_are_not_merged(self) -> AlmOptions:
        if self.strict_pairs and self.merge_by_space_prob:
            raise ValueError("strict_pairs leaves gaps between chunks: set merge_by_space_prob to false")
        return self


@register
class ApproximateLikelihoodMatching(DistillationMethod):
    """L = (1 − α) L_CE + α · mean over chunks of D(exp(b_c / T − ε) ‖ exp(a_c / T − ε)).

    a_c = Σ_{i∈c} log q_i(y_i), b_c the same of the teacher; with `append_space` each and the logarithm of its model's probability
    that the next token begins with white space or is special; the end of sequence has nothing after it. D is between two outcomes,
    by default the cross entropy −[e^β α + (1 − e^β) log(1 − e^α)] of α = a_c / T − ε against β = b_c / T − ε.
    """

    name = "alm"
    title = "approximate likelihood matching"
    paper = "arXiv 2503.20083"
    requires = Requirements(
        on_policy="never",
        chunkable=False,
        outputs_with_options={"text_log_probabilities": "append_space: false, merge_by_space_prob: false"},
    )
    not_reproduced = (
        "Matching of hidden states, weights from gradient norms, and chunks chosen by bias matrices or ended by spaces."
    )
    Options = AlmOptions
    space: ClassVar[Space] = {
        "kd_rate": Uniform(0.3, 1.0),
        "binarization_temperature": Log(1.0, 300.0),
        "binary_divergence": Choice("binary_ce", "binary_kl_temp_limit", "abs"),
    }
    student_space_ids: Tensor | None = None
    teacher_space_ids: Tensor | None = None

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        super().__init__(options)
        if not self._asks_for_space:
            self.requires = self.requires.also_from("text_log_probabilities")

    @property
    def _asks_for_space(self) -> bool:
        """Whether it reads what may follow a token, of which the log-probability of the text says nothing."""
        return bool(self.options.append_space or self.options.merge_by_space_prob)

    def prepare(self, student_head: modeling.Head, teacher_head: modeling.Head, shared: SharedVocabulary) -> None:
        if not self._asks_for_space:
            return
        if shared.teacher_tokens is None or shared.student_tokens is None:
            raise InputError(
                "methods.alm: append_space and merge_by_space_prob need the bytes of both models' tokens, which are unknown here; "
                "fix: make the shared vocabulary with share_vocabulary, or set both options to false"
            )
        device = student_head.weight.device
        self.teacher_space_ids = _space_ids("teacher", shared.teacher_tokens, teacher_head).to(device)
        self.student_space_ids = _space_ids("student", shared.student_tokens, student_head).to(device)

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:

        student, teacher = losses.groups_of(batch)
        space = self._teacher_log_probabilities(batch)[1] if self.options.merge_by_space_prob else None
        return self._counts(batch, self._closing(batch, student, teacher, space))

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        import torch

        student, teacher = losses.groups_of(batch)
        logits = batch.student.head.logits(batch.student.hidden, padded=True)
        ids = self.student_space_ids if self.options.append_space else None
        own, space = _log_probabilities(batch.student.head.without_padding(logits), batch.student.labels, ids)
        teacher_own, teacher_space = self._teacher_log_probabilities(batch)
        valid = losses.matched_groups(student, teacher, strict=self.options.strict_pairs)
        closing = self._closing(batch, student, teacher, teacher_space)

        # A chunk is what comes after one that closes up to the next that does. Places after the last of them add nothing.
        chunk = closing.cumsum(0) - closing.long()
        likelihoods = []
        for side, groups, of_tokens, after_tokens in (
            (batch.teacher, teacher, teacher_own, teacher_space),
            (batch.student, student, own, space),
        ):
            of_groups = torch.where(valid, groups.sums(of_tokens), 0.0)
            if self.options.append_space:
                of_groups = of_groups + torch.where(closing, _after(side, groups, after_tokens), 0.0)
            # Rounding may leave a probability above one.
            likelihoods.append(of_groups.new_zeros(len(closing) + 1).index_add(0, chunk, of_groups).clamp_max(0.0))
        log_p, log_q = likelihoods
        values = binary_divergence(log_p, log_q, self.options.binary_divergence, self.options.binarization_temperature)
        counts = self._counts(batch, closing)
        kept = torch.arange(len(values), device=values.device) < counts["likelihood_matching"]
        sums = {
            "cross_entropy": cross_entropy(batch, logits).total,
            "likelihood_matching": torch.where(kept, values, 0.0).sum(),
            "grouped_share": (student.sizes() * valid).sum().float(),
        }
        return {name: LossTerm(sums[name], count) for name, count in counts.items()}

    def distillation(self, means: dict[str, Tensor]) -> Tensor:
        return means["likelihood_matching"]

    def _closing(
        self, batch: TokenBatch, student: losses.ByteGroups, teacher: losses.ByteGroups, teacher_space: Tensor | None
    ) -> Tensor:
        """The groups that end a chunk, bool [limit]; the end of sequence always does, so chunks stay within an example."""
        valid = losses.matched_groups(student, teacher, strict=self.options.strict_pairs)
        if not self.options.merge_by_space_prob:
            return valid
        return valid & (_after(batch.teacher, teacher, teacher_space) > math.log(self.options.space_probability))

    def _counts(self, batch: TokenBatch, closing: Tensor) -> dict[str, Tensor]:
        labelled = labelled_count(batch)
        chunks = closing.sum().to(labelled.dtype)
        return {"cross_entropy": labelled, "grouped_share": labelled, "likelihood_matching": chunks}

    def _teacher_log_probabilities(self, batch: TokenBatch) -> tuple[Tensor, Tensor | None]:
        """Of the teacher's labels [tokens], and of white space in the place of each, where it is asked for."""
        import torch

        if batch.teacher.label_log_probabilities is not None:
            return batch.teacher.label_log_probabilities.float(), None
        hidden, labels = (values.split(_TEACHER_ROWS) for values in (batch.teacher.hidden, batch.teacher.labels))
        with torch.no_grad():
            parts = [
                _log_probabilities(batch.teacher.head.logits(some), of_some, self.teacher_space_ids)
                for some, of_some in zip(hidden, labels, strict=True)
            ]
        own, space = zip(*parts, strict=True)
        return torch.cat(own), torch.cat(space) if self.teacher_space_ids is not None else None


def _space_ids(side: str, tokens: Sequence[bytes | None], head: modeling.Head) -> Tensor:
    """The ids of tokens that begin with white space or are special. Raises InputError where there is none."""
    import torch

    ids = [k for k, token in enumerate(tokens[: head.size]) if token is None or token[:1] in (b" ", b"\t", b"\n")]
    if not ids:
        raise InputError(
            f"methods.alm: no token of the {side} begins with white space and none is special; "
            "fix: set append_space and merge_by_space_prob to false"
        )
    return torch.tensor(ids)


def _log_probabilities(logits: Tensor, labels: Tensor, space_ids: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Log probabilities [tokens] of each label, and of any of `space_ids` in its place where there are some."""

    own, normaliser = losses.own_log_probabilities(logits, labels)
    if space_ids is None:
        return own, None
    return own, logits.index_select(-1, space_ids).float().logsumexp(-1) - normaliser


def _after(side: SideTokens, groups: losses.ByteGroups, values: Tensor | None) -> Tensor:
    """values [tokens] at the token after each group [limit]; 0 after the last of an example."""

    assert values is not None
    following = (groups.last() + 1).clamp_max(len(values) - 1)
    return values[following].masked_fill(groups.with_any(losses.last_tokens(side.sizes, values.device)), 0.0)


def binary_divergence(log_p: Tensor, log_q: Tensor, name: str, temperature: float) -> Tensor:
    """Of the teacher's and the student's chunk [chunks], from its log probabilities, neither above 0."""
    if name == "abs":
        return (log_p - log_q).abs()
    if name == "binary_kl_temp_limit":
        log_p, log_q = log_p - _EPSILON, log_q - _EPSILON
        return log_p - log_q + log_p * (log_q / log_p).log()
    log_p, log_q = log_p / temperature - _EPSILON, log_q / temperature - _EPSILON
    if name == "abs_exp":
        return (log_p.exp() - log_q.exp()).abs()
    if name == "reverse_binary_kl":
        log_ratio_of_rest = _log_one_minus_exp(log_q) - _log_one_minus_exp(log_p)
        return log_q.exp() * (log_q - log_p) - log_q.expm1() * log_ratio_of_rest
    return log_p.expm1() * _log_one_minus_exp(log_q) - log_p.exp() * log_q


def _log_one_minus_exp(values: Tensor) -> Tensor:
    """log(1 − eˣ) for x < 0, by the form that rounds less."""
    import torch

    return torch.where(values < -math.log(2.0), torch.log1p(-values.exp()), (-values.expm1()).log())
