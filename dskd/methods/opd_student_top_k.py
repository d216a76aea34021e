"""On-policy distillation by a policy gradient on several candidates at each position (arXiv 2604.13016, "Rethinking OPD")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dskd import losses
from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import Method, Requirements, register
from dskd.methods.on_policy import PolicyGradientOptions, distributions, sampled_pairs
from dskd.methods.space import Choice, Space

if TYPE_CHECKING:
    from torch import Tensor


class StudentTopKOptions(PolicyGradientOptions):
    """Defaults are those of the authors' script."""

    top_k: int = Field(16, gt=0, description="k, candidates of each list")
    support: Literal["student", "teacher", "intersection", "union", "union-intersection"] = Field(
        "student",
        description="S, the candidates: the most probable of one model, of both, of either, or of one of them alone",
    )
    weights: Literal["student", "teacher", "uniform"] = Field(
        "student",
        description="w of the candidates: q or p, divided by its sum over S (in union-intersection as it is), or 1/|S|",
    )


@register
class StudentTopKOpd(Method):
    """L = (1/N) Σ_t Σ_(v ∈ S_t) ℓ(A_t(v), ρ_t(v)), A_t(v) = −w(v) (log q_old(v) − log p(v)), ρ = q / q_old (docs/rivals.md).

    ℓ is the clipped loss of `opd`, for each candidate. At ρ = 1 the gradient is that of Σ_S [q log(q/p) − q + p], divided by the
    mass of S. The sampled token plays no part but to be the prefix of the next.
    """

    name = "opd-student-top-k"
    title = "on-policy distillation, candidates of the student"
    paper = "arXiv 2604.13016"
    requires = Requirements(
        vocabulary="same", on_policy="always", exact_sampling=False, outputs_with_options={"top_k": "support: teacher"}
    )
    not_reproduced = (
        "A temperature of the teacher alone; the folded form of a framework, whose expected gradient is zero."
    )
    Options = StudentTopKOptions
    space: ClassVar[Space] = {"top_k": Choice(4, 16, 64, 256), "weights": Choice("student", "teacher", "uniform")}

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        super().__init__(options)
        if self.options.support == "teacher":
            self.requires = self.requires.also_from("top_k")
        if self._from_written:
            self.requires = replace(self.requires, written_statistics="top_k")

    @property
    def _from_written(self) -> bool:
        """Whether all candidates are among the student's own, of which an old student's probabilities may be known."""
        return self.options.support in ("student", "intersection")

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        temperature = self.options.temperature
        student, teacher = distributions(batch, temperature)
        kept = sampled_pairs(batch)[batch.student.pairs]
        count = kept.sum().float()
        own, old = self._own_candidates(batch, student)
        ids, overlap = self._candidates(own, teacher)
        given = ids >= 0
        log_q = student.at(ids)
        log_old = log_q.detach() if old is None else old.masked_fill(~given, -float("inf"))
        log_p = teacher.at(ids)
        advantage = self._advantages(log_old, log_p, given)
        loss, cut = losses.clipped_surrogate(
            log_q.masked_fill(~given, 0.0),
            log_old.masked_fill(~given, 0.0),
            advantage,
            self.options.clip_range,
            self.options.dual_clip,
        )
        report = {"advantage": advantage.sum(-1), "clipped_share": (cut & given).float().mean(-1)}
        if overlap is not None:
            report["overlap"] = overlap
        for name, values in report.items():
            batch.metrics[name] = LossTerm(values.masked_fill(~kept, 0.0).sum(), count)
        total = loss.masked_fill(~given, 0.0).sum(-1).masked_fill(~kept, 0.0).sum()
        return {"policy_gradient": LossTerm(total, count)}

    def _own_candidates(self, batch: TokenBatch, student: losses.Distribution) -> tuple[Tensor, Tensor | None]:
        """(the student's most probable tokens [pairs, k], their log q_old where old weights wrote the text)."""
        written = batch.student.written_top_k_ids
        if written is None or not self._from_written:
            return student.top(self.options.top_k), None
        pairs, count = batch.student.pairs, self.options.top_k
        return written[pairs, :count], batch.student.written_top_k_log_probabilities[pairs, :count].float()

    def _candidates(
        self, own: Tensor, teacher: losses.Distribution | losses.KnownTokens
    ) -> tuple[Tensor, Tensor | None]:
        """(S [pairs, ids], the share of the student's list that the teacher's has, where both are known)."""
        kind = self.options.support
        if kind == "student":
            return own, None
        others = teacher.top(self.options.top_k)
        if kind == "teacher":
            return others, None
        common = losses.among(own, others)
        overlap = (common >= 0).float().mean(-1)
        if kind == "intersection":
            return common, overlap
        import torch

        first = own if kind == "union" else losses.without(own, others)
        return torch.cat([first, losses.without(others, own)], -1), overlap

    def _advantages(self, log_old: Tensor, log_p: Tensor, given: Tensor) -> Tensor:
        """A [pairs, ids], 0 where there is no token."""
        import torch

        by = log_p if self.options.weights == "teacher" else log_old
        if self.options.weights == "uniform":
            weights = given.float() / given.sum(-1, keepdim=True).clamp_min(1)
        elif self.options.support == "union-intersection":
            weights = by.exp()
        else:  # a row without any token has no weights
            weights = torch.where(given.any(-1, keepdim=True), by, 0.0).softmax(-1)
        difference = log_old.masked_fill(~given, 0.0) - log_p.masked_fill(~given, 0.0)
        return (-weights * difference).masked_fill(~given, 0.0)

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        return {"policy_gradient": sampled_pairs(batch).sum().float()}

    def covered(self, batch: TokenBatch, terms: Mapping[str, LossTerm]) -> Tensor:
        return sampled_pairs(batch).sum().float()

    def objective(self, means: dict[str, Tensor]) -> Tensor:
        return means["policy_gradient"]
