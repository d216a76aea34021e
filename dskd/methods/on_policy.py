"""What the methods of on-policy distillation share: which tokens count, how probable they are to both models, and the policy gradient.

y_t is a token that the student sampled, q and p the two models' next-token distributions there, at the method's temperature.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dskd import losses
from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import Method, Options, Requirements, logits_of_teacher, top_k_of_teacher
from dskd.teachers.options import TeacherOutputKind

if TYPE_CHECKING:
    from torch import Tensor

TEXT: TeacherOutputKind = "text_log_probabilities"


class OnPolicyOptions(Options):
    """What all of them have."""

    temperature: float = Field(
        1.0, gt=0.0, description="τ; divides both models' logits, and is the temperature that rollouts are sampled at"
    )


class PolicyGradientOptions(OnPolicyOptions):
    """Of the loss on sampled tokens; the defaults are those that the frameworks have in common."""

    clip_range: float = Field(0.2, gt=0.0, lt=1.0, description="ε of the clipped importance ratio")
    dual_clip: float = Field(
        3.0, gt=1.0, description="c; a token with a negative advantage A adds −c A to the loss at most"
    )


class PolicyGradient(Method):
    """L = (1/N) Σ_t ℓ(A_t, ρ_t) over the N tokens that the student sampled; ρ_t = q(y_t) / q_old(y_t), A_t without gradient.

    ℓ = max(−A ρ, −A clip(ρ, 1 − ε, 1 + ε)), for A < 0 at most −c A. q_old are the weights that wrote the text; ρ is 1 where those
    are the weights as they are. Tokens of the data have no loss.
    """

    requires = Requirements(
        vocabulary="same",
        teacher_outputs=("hidden_states", TEXT),
        on_policy="always",
        written_statistics="log_probabilities",
    )
    Options: ClassVar[type[Options]] = PolicyGradientOptions

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        super().__init__(options)
        self.requires = at_own_temperature(self.requires, self.options.temperature)

    @abstractmethod
    def advantages(self, batch: TokenBatch, log_q: Tensor) -> Tensor:
        """A [tokens]; log_q [tokens], log q(y_t) of the weights as they are, without gradient."""

    def surrogate(self, log_q: Tensor, log_old: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
        """(ℓ, whether a clip cuts off its gradient), both [tokens]."""
        options = self.options
        return losses.clipped_surrogate(log_q, log_old, advantage, options.clip_range, options.dual_clip)

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        log_q = own_log_q(batch, self.options.temperature)
        kept, detached = self.counted(batch), log_q.detach()
        advantage = self.advantages(batch, detached).float()
        loss, cut = self.surrogate(log_q, log_old(batch, detached), advantage)
        count = kept.sum().float()
        report = {"advantage": advantage, "positive_advantages": advantage > 0, "clipped_share": cut}
        for name, values in report.items():
            batch.metrics[name] = LossTerm(values.float().masked_fill(~kept, 0.0).sum(), count)
        return {"policy_gradient": LossTerm(loss.masked_fill(~kept, 0.0).sum(), count)}

    def counted(self, batch: TokenBatch) -> Tensor:
        """The N tokens, bool [tokens]."""
        return sampled_pairs(batch)

    def covered(self, batch: TokenBatch, terms: Mapping[str, LossTerm]) -> Tensor | None:
        return self.counted(batch).sum().float() if self.requires.teacher else None

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        return {"policy_gradient": self.counted(batch).sum().float()}

    def objective(self, means: dict[str, Tensor]) -> Tensor:
        return means["policy_gradient"]


def at_own_temperature(requires: Requirements, temperature: float) -> Requirements:
    """What a method requires at its temperature: the log-probabilities of a text, or of the most probable tokens, are known at 1 alone."""
    if temperature == 1.0 or TEXT not in requires.teacher_outputs:
        return requires
    others = tuple(kind for kind in requires.teacher_outputs if kind != TEXT)
    able = {**requires.outputs_with_options, TEXT: "temperature: 1"}
    return replace(requires, teacher_outputs=others, outputs_with_options=able)


def sampled(batch: TokenBatch) -> Tensor:
    """Of each labelled token, whether the student wrote it, bool [tokens]; none where nobody says so."""
    student = batch.student
    return student.labels.new_zeros(len(student.labels)).bool() if student.sampled is None else student.sampled


def sampled_pairs(batch: TokenBatch) -> Tensor:
    """Those of them that the teacher has too, bool [tokens]."""
    own = sampled(batch)
    return own & own.new_zeros(len(own)).index_fill(0, batch.student.pairs, True)


def own_log_q(batch: TokenBatch, temperature: float) -> Tensor:
    """log q(y_t) [tokens], float32, with the student's gradient."""
    import torch

    logits = batch.student.head.logits(batch.student.hidden)
    scaled = losses.at_temperature(logits, temperature)
    return -torch.nn.functional.cross_entropy(scaled, batch.student.labels, reduction="none")


def log_old(batch: TokenBatch, log_q: Tensor) -> Tensor:
    """log q_old(y_t) [tokens]: what the weights that wrote the text thought of it; log_q where those are the weights as they are.

    Older weights' are known at temperature 1, so `dskd.compatibility` refuses them at another.
    """
    written = batch.student.written_log_probabilities
    return log_q if written is None else written.float()


def distributions(
    batch: TokenBatch, temperature: float
) -> tuple[losses.Distribution, losses.Distribution | losses.KnownTokens]:
    """(the student's, the teacher's) at the pairs; of a teacher that gives its most probable tokens alone, these."""
    student = losses.Distribution.of(
        batch.student.head.logits(batch.student.at_pairs(batch.student.hidden)), temperature
    )
    if batch.teacher.top_k_ids is not None:
        return student, losses.KnownTokens(*top_k_of_teacher(batch))
    return student, losses.Distribution.of(logits_of_teacher(batch), temperature)


def log_p_of_text(batch: TokenBatch, log_q: Tensor, temperature: float) -> Tensor:
    """log p(y_t) [tokens], without gradient; log_q [tokens] where the teacher does not have the token."""
    import torch

    teacher, pairs = batch.teacher, batch.student.pairs
    if teacher.label_log_probabilities is not None:
        found = teacher.label_log_probabilities[teacher.pairs].float()
    else:
        with torch.no_grad():
            found, _ = losses.own_log_probabilities(logits_of_teacher(batch), batch.student.labels[pairs], temperature)
    return log_q.index_copy(0, pairs, found)


def by_chunks(batch: TokenBatch, compute: Callable[[TokenBatch], Tensor]) -> Tensor:
    """What is computed of the tokens of a batch, a chunk of them at a time [tokens, …]."""
    import torch

    return torch.cat([compute(part) for part in losses.chunks(batch, losses.chunk_size(batch, None))])
