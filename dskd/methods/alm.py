"""Approximate likelihood matching (ALM, arXiv 2503.20083) for any two vocabularies.

Whole chunks of text are compared instead of next tokens: how probable a stretch of bytes is that begins and ends at token ends of
both models (docs/method.md). The teacher gives the probabilities of its own tokens and of one set of tokens, and no distribution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from dskd.errors import InputError
from dskd.methods.base import LabelledTokens, Method, Options, Term, cross_entropy, labelled_count, register

if TYPE_CHECKING:
    from torch import Tensor

    from dskd.losses.token_groups import Groups
    from dskd.modeling.lm_head import Head
    from dskd.tokenization.vocabulary import SharedVocabulary

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
class ApproximateLikelihoodMatching(Method):
    """L = (1 − α) L_CE + α · mean over chunks of D(exp(b_c / T − ε) ‖ exp(a_c / T − ε)).

    a_c = Σ_{i∈c} log q_i(y_i), b_c the same of the teacher; with `append_space` each and the logarithm of its model's probability
    that the next token begins with white space or is special; the end of sequence has nothing after it. D is between two outcomes,
    by default the cross entropy −[e^β α + (1 − e^β) log(1 − e^α)] of α = a_c / T − ε against β = b_c / T − ε.
    """

    name = "alm"
    title = "approximate likelihood matching"
    paper = "arXiv 2503.20083"
    vocabulary = "any"
    needs_teacher = True
    policy = "off"
    per_token = False
    not_reproduced = (
        "Matching of hidden states, weights from gradient norms, and chunks chosen by bias matrices or ended by spaces."
    )
    Options = AlmOptions
    student_space_ids: Tensor
    teacher_space_ids: Tensor

    def prepare(self, student_head: Head, teacher_head: Head | None, shared: SharedVocabulary | None) -> None:
        import torch

        assert teacher_head is not None
        assert shared is not None
        if not self._asks_for_space:
            return
        if shared.teacher_tokens is None or shared.student_tokens is None:
            raise InputError(
                "methods.alm: append_space and merge_by_space_prob need the bytes of both models' tokens, which are unknown here; "
                "fix: make the shared vocabulary with share_vocabulary, or set both options to false"
            )
        for side, tokens, head in (
            ("teacher", shared.teacher_tokens, teacher_head),
            ("student", shared.student_tokens, student_head),
        ):
            ids = [
                k for k, token in enumerate(tokens[: head.size]) if token is None or token[:1] in (b" ", b"\t", b"\n")
            ]
            if not ids:
                raise InputError(
                    f"methods.alm: no token of the {side} begins with white space and none is special; "
                    "fix: set append_space and merge_by_space_prob to false"
                )
            setattr(self, f"{side}_space_ids", torch.tensor(ids, device=student_head.weight.device))

    @property
    def _asks_for_space(self) -> bool:
        return self.options.append_space or self.options.merge_by_space_prob

    def counts(self, batch: LabelledTokens) -> dict[str, Tensor]:
        from dskd.losses.token_groups import groups_of

        student, teacher = groups_of(batch)
        space = self._teacher_log_probabilities(batch)[1] if self.options.merge_by_space_prob else None
        return self._counts(batch, self._closing(batch, student, teacher, space))

    def terms(self, batch: LabelledTokens) -> dict[str, Term]:
        import torch

        from dskd.losses.token_groups import groups_of

        student, teacher = groups_of(batch)
        logits = batch.student_head.logits(batch.student_hidden, padded=True)
        real_logits = batch.student_head.without_padding(logits)
        own, space = self._log_probabilities(real_logits, batch.student_labels, "student")
        teacher_own, teacher_space = self._teacher_log_probabilities(batch)
        valid = self._valid(student, teacher)
        closing = self._closing(batch, student, teacher, teacher_space)

        # A chunk is what comes after one that closes up to the next that does. Places after the last of them add nothing.
        chunk = closing.cumsum(0) - closing.long()
        likelihoods = []
        for side, groups, of_tokens, after_tokens in (
            ("teacher", teacher, teacher_own, teacher_space),
            ("student", student, own, space),
        ):
            of_groups = torch.where(valid, groups.sums(of_tokens), 0.0)
            if self.options.append_space:
                of_groups = of_groups + torch.where(closing, _after(batch, side, groups, after_tokens), 0.0)
            # Rounding may leave a probability above one.
            likelihoods.append(of_groups.new_zeros(len(closing) + 1).index_add(0, chunk, of_groups).clamp_max(0.0))
        log_p, log_q = likelihoods
        values = binary_divergence(log_p, log_q, self.options.binary_divergence, self.options.binarization_temperature)
        counts = self._counts(batch, closing)
        kept = torch.arange(len(values), device=values.device) < counts["likelihood_matching"]
        sums = {
            "cross_entropy": cross_entropy(batch, logits).sum,
            "likelihood_matching": torch.where(kept, values, 0.0).sum(),
            "grouped_share": (student.sizes() * valid).sum().float(),
        }
        return {name: Term(sums[name], count) for name, count in counts.items()}

    def objective(self, means: dict[str, Tensor]) -> Tensor:
        rate = self.options.kd_rate
        return (1 - rate) * means["cross_entropy"] + rate * means["likelihood_matching"]

    def _valid(self, student: Groups, teacher: Groups) -> Tensor:
        """The groups that count, bool [limit]."""
        sizes = student.sizes(), teacher.sizes()
        if self.options.strict_pairs:
            return (sizes[0] == 1) & (sizes[1] == 1)
        return (sizes[0] > 0) & (sizes[1] > 0)

    def _closing(self, batch: LabelledTokens, student: Groups, teacher: Groups, teacher_space: Tensor | None) -> Tensor:
        """The groups that end a chunk, bool [limit]; the end of sequence always does, so chunks stay within an example."""
        import math

        valid = self._valid(student, teacher)
        if not self.options.merge_by_space_prob:
            return valid
        return valid & (_after(batch, "teacher", teacher, teacher_space) > math.log(self.options.space_probability))

    def _counts(self, batch: LabelledTokens, closing: Tensor) -> dict[str, Tensor]:
        labelled = labelled_count(batch)
        chunks = closing.sum().to(labelled.dtype)
        return {"cross_entropy": labelled, "grouped_share": labelled, "likelihood_matching": chunks}

    def _teacher_log_probabilities(self, batch: LabelledTokens) -> tuple[Tensor, Tensor | None]:
        import torch

        assert batch.teacher_head is not None
        assert batch.teacher_hidden is not None
        assert batch.teacher_labels is not None
        hidden, labels = (values.split(_TEACHER_ROWS) for values in (batch.teacher_hidden, batch.teacher_labels))
        with torch.no_grad():
            parts = [
                self._log_probabilities(batch.teacher_head.logits(some), of_some, "teacher")
                for some, of_some in zip(hidden, labels, strict=True)
            ]
        own, space = zip(*parts, strict=True)
        return torch.cat(own), torch.cat(space) if self._asks_for_space else None

    def _log_probabilities(
        self, logits: Tensor, labels: Tensor, side: Literal["student", "teacher"]
    ) -> tuple[Tensor, Tensor | None]:
        """Log probabilities [tokens] of each label, and of white space or a special token in its place where that is asked for."""
        from dskd.losses.token_groups import own_log_probabilities

        own, normaliser = own_log_probabilities(logits, labels)
        if not (self._asks_for_space and (side == "teacher" or self.options.append_space)):
            return own, None
        ids: Tensor = getattr(self, f"{side}_space_ids")
        return own, logits.index_select(-1, ids).float().logsumexp(-1) - normaliser


def _after(batch: LabelledTokens, side: str, groups: Groups, values: Tensor | None) -> Tensor:
    """values [tokens] at the token after each group [limit]; 0 after the last of an example."""
    from dskd.losses.token_groups import last_tokens

    assert values is not None
    sizes = batch.teacher_sizes if side == "teacher" else batch.student_sizes
    assert sizes is not None
    following = (groups.last() + 1).clamp_max(len(values) - 1)
    return values[following].masked_fill(groups.with_any(last_tokens(sizes, values.device)), 0.0)


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
    import math

    import torch

    return torch.where(values < -math.log(2.0), torch.log1p(-values.exp()), (-values.expm1()).log())
