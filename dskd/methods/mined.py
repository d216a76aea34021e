"""Distillation through a map between vocabularies by least edit distance (MinED; FuseLLM, arXiv 2401.10491), for any two of them.

Notation of docs/method.md: pairs (i, j) of tokens on the same bytes; ψ(v) the one teacher's token that stands for the student's
token v: that of the same bytes where there is one, else the nearest of the tokens to which v is nearest.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from dskd import losses, modeling, tokenization
from dskd.errors import InputError
from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import DistillationMethod, Options, cross_entropy, labelled_count, logits_of_teacher, register
from dskd.methods.space import Choice, Log, Space, Uniform
from dskd.tokenization.vocabulary import SharedVocabulary

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class MinimumEditOptions(Options):
    """Options of distillation by minimum edit distance. The divergence is the forward KL: the target is zero on many tokens."""

    kd_rate: float = Field(0.5, ge=0.0, le=1.0, description="weight α of distillation against cross entropy, 0 to 1")
    temperature: float = Field(2.0, gt=0.0, description="τ; divides both models' logits in the divergence")
    most_edits: int = Field(
        2,
        ge=0,
        le=2,
        description="edits of a byte between two tokens of which one stands for the other; 0: exact twins alone",
    )
    unpaired: Literal["label", "left_out"] = Field(
        "label", description="the target of a token without a partner: all probability on its label, or none"
    )


@register
class MinimumEditDistance(DistillationMethod):
    """L = (1 − α) L_CE + α (1/N) Σ_i KL(p̃_i || q_i), p̃_i the teacher's mapped distribution or the label (docs/method.md)."""

    name = "mined"
    title = "minimum edit distance"
    paper = "arXiv 2401.10491"
    not_reproduced = (
        "Tokens pair on the same bytes and not by dynamic time warping; tokens more than two edits apart are not mapped; "
        "FuseLLM's choice between several teachers is left out."
    )
    Options = MinimumEditOptions
    space: ClassVar[Space] = {
        "kd_rate": Uniform(0.3, 1.0),
        "temperature": Log(0.5, 4.0),
        "unpaired": Choice("label", "left_out"),
    }
    teacher_id_of: Tensor

    def prepare(self, student_head: modeling.Head, teacher_head: modeling.Head, shared: SharedVocabulary) -> None:
        import torch

        mapped = stand_ins(shared, student_head.size, self.options.most_edits)
        if (mapped < 0).all():
            raise InputError(
                f"{self.name}: no token of the teacher stands for one of the student; fix: use another pair"
            )
        self.teacher_id_of = torch.from_numpy(mapped).to(student_head.weight.device)

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        temperature = self.options.temperature
        logits = batch.student.head.logits(batch.student.hidden, padded=True)
        student_logits = batch.student.head.without_padding(logits)
        target = logits_of_teacher(batch)[:, self.teacher_id_of.clamp_min(0)]
        target.masked_fill_(self.teacher_id_of < 0, -math.inf)
        distillation = losses.forward_kl(target, batch.student.at_pairs(student_logits), temperature).sum()
        if self.options.unpaired == "label":
            # KL from all probability on the label; what is below zero counts nothing.
            alone = batch.student.labels.index_fill(0, batch.student.pairs, -1)
            if batch.student.sampled is not None:  # no truth, so no target
                alone = alone.masked_fill(batch.student.sampled, -1)
            distillation = distillation + losses.cross_entropy_sum(student_logits / temperature, alone)
        counts = self.counts(batch)
        return {
            "cross_entropy": cross_entropy(batch, logits),
            "distillation": LossTerm(distillation, counts["distillation"]),
            "aligned_share": LossTerm(super().counts(batch)["distillation"], counts["aligned_share"]),
        }

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        labelled = labelled_count(batch)
        distilled = {"distillation": labelled} if self.options.unpaired == "label" else {}
        return super().counts(batch) | distilled | {"aligned_share": labelled}


def stand_ins(shared: SharedVocabulary, student_size: int, most_edits: int) -> np.ndarray:
    """ψ: the teacher's id that stands for each of the student's, int64 [student size], -1 where there is none.

    A teacher's token without a twin goes to the nearest of the student's tokens, at most `most_edits` edits of a byte and half of its
    bytes away. Of several that go to one student's token the nearest stands for it, and none where that has a twin.
    """
    import numpy as np  # not at the top: planning imports every method, and needs no arrays

    teacher_id_of = np.full(student_size, -1, dtype=np.int64)
    teacher_id_of[shared.student_ids] = shared.teacher_ids
    if shared.same or shared.teacher_tokens is None or shared.student_tokens is None or not most_edits:
        return teacher_id_of
    left = [k for k, token in enumerate(shared.teacher_tokens) if token and shared.student_id_of[k] < 0]
    right = [k for k, token in enumerate(shared.student_tokens) if token]
    found, edits = tokenization.nearest(
        [shared.teacher_tokens[k] or b"" for k in left], [shared.student_tokens[k] or b"" for k in right], most_edits
    )
    near = (found >= 0).nonzero()[0]
    students = np.array(right, dtype=np.int64)[found[near]]
    teachers = np.array(left, dtype=np.int64)[near]
    order = np.lexsort((teachers, edits[near], students))
    students, teachers = students[order], teachers[order]
    first = np.append(True, students[1:] != students[:-1])[: len(students)] & (teacher_id_of[students] < 0)
    teacher_id_of[students[first]] = teachers[first]
    return teacher_id_of
