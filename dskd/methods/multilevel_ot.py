"""Multi-level optimal transport (Cui et al., arXiv 2412.14528): an answer's most probable tokens by rank, for any two vocabularies.

Notation of docs/method.md, and for one example with n position pairs: P and Q [n, K], the probabilities of the teacher's and of the
student's K tokens that are most probable in the example as a whole, in corresponding order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import Method, Options, Requirements, cross_entropy, labelled_count, register
from dskd.methods.space import Log, Space

if TYPE_CHECKING:
    from torch import Tensor

_SINKHORN_STEPS = 10
_SINKHORN_REGULARISATION = 0.1
_SINKHORN_TEMPERATURE = 2.0


class MultiLevelOptions(Options):
    """Options of multi-level optimal transport; the weights are those of the authors' code."""

    distillation_weight: float = Field(1.5, ge=0.0, description="of the three transport terms against cross entropy")
    logarithmic_weight: float = Field(0.1, ge=0.0, description="of the logarithmic cost among them")
    sinkhorn_weight: float = Field(
        0.1, ge=0.0, description="of the transport between the tokens of an example among them"
    )
    temperature: float = Field(1.0, gt=0.0, description="τ; divides both models' standardised logits")
    top_k: int = Field(50, ge=1, description="K, the tokens of each vocabulary that are compared in an example")
    ranking: Literal["independent", "matched"] = Field(
        "independent",
        description="the student's tokens: its own most probable, or for each of the teacher's the nearest unused one",
    )


@register
class MultiLevelOptimalTransport(Method):
    """L = L_CE + w (L_abs + w_log L_log + w_sd L_sd), each a mean over the position pairs (docs/method.md)."""

    name = "multilevel-ot"
    title = "multi-level optimal transport"
    paper = "arXiv 2412.14528"
    requires = Requirements(on_policy="never", pairing="position", chunkable=False)
    not_reproduced = (
        "The ranking over a batch (here over one example), the swapped sides of the logarithmic cost, the second softmax over "
        "probabilities, and the means over examples."
    )
    Options = MultiLevelOptions
    space: ClassVar[Space] = {
        "distillation_weight": Log(0.3, 10.0),
        "logarithmic_weight": Log(0.03, 1.0),
        "temperature": Log(0.5, 2.0),
    }

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        import torch

        sizes = torch.minimum(batch.teacher.sizes, batch.student.sizes).tolist()
        logits = batch.student.head.logits(batch.student.hidden, padded=True)
        student_logits = batch.student.head.without_padding(batch.student.at_pairs(logits)).split(sizes)
        teacher_hidden = batch.teacher.hidden[batch.teacher.pairs].split(sizes)
        sums = torch.zeros(3, device=logits.device)
        for hidden, student in zip(teacher_hidden, student_logits, strict=True):
            if len(hidden):
                with torch.no_grad():
                    teacher = batch.teacher.head.logits(hidden)
                sums = sums + torch.stack(self._transport(teacher, student))
        counts = self.counts(batch)
        named = zip(("absolute", "logarithmic", "sinkhorn"), sums.unbind(), strict=True)
        return {"cross_entropy": cross_entropy(batch, logits)} | {
            name: LossTerm(value, counts[name]) for name, value in named
        }

    def _transport(self, teacher_logits: Tensor, student_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The three sums of one example: logits [pairs, vocabulary] of either side."""
        import torch

        with torch.no_grad():
            scaled_teacher = self._scaled(teacher_logits)
        scaled_student = self._scaled(student_logits)
        with torch.no_grad():
            p, q = scaled_teacher.softmax(-1), scaled_student.softmax(-1)
            kept = min(self.options.top_k, p.shape[-1], q.shape[-1])
            teacher_ids = p.sum(0).topk(kept).indices
            matched = self.options.ranking == "matched"
            student_ids = _nearest_columns(p[:, teacher_ids], q) if matched else q.sum(0).topk(kept).indices
            del p, q
        log_p = scaled_teacher[:, teacher_ids] - scaled_teacher.logsumexp(-1, keepdim=True)
        log_q = scaled_student[:, student_ids] - scaled_student.logsumexp(-1, keepdim=True)
        absolute = (log_p.exp() - log_q.exp()).abs().sum()
        logarithmic = -(log_p.softmax(-1) * log_q.log_softmax(-1)).sum()
        return absolute, logarithmic, _sinkhorn_cost(log_p, log_q)

    def _scaled(self, logits: Tensor) -> Tensor:
        """The logits of each position by their standard deviation over the vocabulary, and by τ."""
        wide = logits.float()
        return wide / ((wide.std(-1, keepdim=True) + 1e-4) * self.options.temperature)

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        labelled = labelled_count(batch)
        pairs = labelled.new_full((), float(len(batch.student.pairs)))
        return {"cross_entropy": labelled} | dict.fromkeys(("absolute", "logarithmic", "sinkhorn"), pairs)

    def objective(self, means: dict[str, Tensor]) -> Tensor:
        options = self.options
        transport = (
            means["absolute"]
            + options.logarithmic_weight * means["logarithmic"]
            + options.sinkhorn_weight * means["sinkhorn"]
        )
        return means["cross_entropy"] + options.distillation_weight * transport


def _nearest_columns(teacher: Tensor, student: Tensor) -> Tensor:
    """For each of the teacher's columns [pairs, K], in order, the column of student [pairs, vocabulary] nearest of those left."""
    import torch

    used = torch.zeros_like(student[0])
    chosen = []
    for column in teacher.unbind(-1):
        distances = (student - column.unsqueeze(-1)).abs().sum(0) + used
        chosen.append(distances.argmin(keepdim=True))
        used.index_fill_(0, chosen[-1], torch.inf)
    return torch.cat(chosen)


def _sinkhorn_cost(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Σ Π ∘ C between the positions of one example, Π by Sinkhorn's iterations; the gradient goes through them."""
    import torch

    p, q = ((side / _SINKHORN_TEMPERATURE).softmax(-1) for side in (log_p, log_q))
    cost = torch.cdist(p, q, p=1.0)
    plan = (-cost / _SINKHORN_REGULARISATION).exp()
    for _ in range(_SINKHORN_STEPS):
        plan = plan / plan.sum(1, keepdim=True)
        plan = plan / plan.sum(0, keepdim=True)
    return (plan * cost).sum()
