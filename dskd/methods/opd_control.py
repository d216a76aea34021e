"""A control without a teacher: the student's least probable tokens are made less probable (after arXiv 2608.31046, OPSA).

Where on-policy distillation gains no more than this on the same text, its gain is no evidence that the teacher's knowledge passed over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dskd import losses
from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import ResponseStatistics, register
from dskd.methods.on_policy import (
    PolicyGradient,
    PolicyGradientOptions,
    at_own_temperature,
    by_chunks,
    log_old,
    log_p_of_text,
    own_log_q,
    sampled,
    sampled_pairs,
)
from dskd.methods.space import Log, Space

if TYPE_CHECKING:
    from torch import Tensor


class ControlOptions(PolicyGradientOptions):
    """Three arms on the same text: the control, and `opd` on its tokens (advantage: teacher) or on the others (tokens: others)."""

    advantage: Literal["constant", "entropy", "teacher"] = Field(
        "constant",
        description="constant: a; entropy: OPSA's, −½ to −1 by the student's entropy; teacher: opd's log p − log q",
    )
    tokens: Literal["lowest", "others"] = Field(
        "lowest", description="those of each response that the student found least probable, or all others"
    )
    share: float = Field(
        0.2, gt=0.0, le=1.0, description="of the tokens of a response, those that are the lowest; rounded up"
    )
    constant: float = Field(
        -0.5, lt=0.0, description="a, the advantage of these tokens; positive ones let a student collapse"
    )


@register
class TeacherFreeControl(ResponseStatistics, PolicyGradient):
    """`PolicyGradient` with A_t = a on the tokens that are chosen and 0 elsewhere, N all sampled tokens (docs/rivals.md).

    Chosen are the ⌈share · n⌉ of the n tokens of a response with the lowest log q_old(y_t), of equal ones the earlier.
    """

    name = "opd-control"
    title = "control of on-policy distillation without a teacher"
    paper = "after arXiv 2608.31046"
    requires = replace(PolicyGradient.requires, vocabulary="any", teacher=False)
    not_reproduced = (
        "The authors' code is not public: over which tokens the share and the entropy's range are taken is ours."
    )
    Options = ControlOptions
    # The arms, `advantage` and `tokens`, are what is compared; the size of one constant is the learning rate's.
    space: ClassVar[Space] = {"share": Log(0.1, 0.5)}

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        super().__init__(options)
        if self.options.advantage == "teacher":
            self.requires = at_own_temperature(PolicyGradient.requires, self.options.temperature)

    def counted(self, batch: TokenBatch) -> Tensor:
        return sampled_pairs(batch) if self.options.advantage == "teacher" else sampled(batch)

    def covered(self, batch: TokenBatch, terms: Mapping[str, LossTerm]) -> Tensor | None:
        if not self.requires.teacher:
            return None
        return (self.counted(batch) & (batch.student.per_token_statistics[:, 0] != 0)).sum().float()

    def response_statistics(self, batch: TokenBatch) -> Tensor:
        """[tokens, 1]: A_t."""
        import torch

        found = by_chunks(batch, self._of_tokens)
        old, advantage = found.unbind(-1)
        responses = losses.responses_of(batch.student.sizes, old.device)
        kept = self.counted(batch)
        share = self.options.share
        # The share of a whole number of tokens may come out above it by rounding.
        chosen = losses.lowest(
            old, responses, kept, lambda count: (count.double() * share - 1e-9).ceil().clamp_min(1).long()
        )
        chosen = chosen if self.options.tokens == "lowest" else kept & ~chosen
        if self.options.advantage == "entropy":
            advantage = _by_entropy(advantage, responses, chosen)
        return torch.where(chosen, advantage, 0.0).unsqueeze(-1)

    def _of_tokens(self, batch: TokenBatch) -> Tensor:
        """[tokens, 2]: log q_old(y_t), and what the advantage is made of."""
        import torch

        temperature = self.options.temperature
        log_q = own_log_q(batch, temperature)
        old = log_old(batch, log_q)
        if self.options.advantage == "teacher":
            own = log_p_of_text(batch, old, temperature) - old
        elif self.options.advantage == "entropy":
            own = losses.Distribution.of(batch.student.head.logits(batch.student.hidden), temperature).entropy()
        else:
            own = torch.full_like(old, self.options.constant)
        return torch.stack([old, own], -1)

    def advantages(self, batch: TokenBatch, log_q: Tensor) -> Tensor:
        return batch.student.per_token_statistics[:, 0]


def _by_entropy(entropy: Tensor, responses: Tensor, chosen: Tensor) -> Tensor:
    """−½ − (H − H_min) / (2 (H_max − H_min)), the range over the chosen tokens of a response; −½ where they are all alike."""
    least = losses.over_responses(entropy.masked_fill(~chosen, math.inf), responses, "amin")
    most = losses.over_responses(entropy.masked_fill(~chosen, -math.inf), responses, "amax")
    reach = (most - least).clamp_min(1e-12)
    return -0.5 - (entropy - least) / (2 * reach)
