"""The released code's inputs for X-Token as batches: its chunks are the groups, its rows are those that predict a token."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dskd.losses.token_groups import groups_of
from dskd.losses.tokens import LossTerm
from dskd.methods.x_token import XToken
from dskd.modeling.lm_head import Head
from dskd.tokenization.vocabulary_projection import VocabularyProjection
from helpers.token_batches import token_batch

TEACHER_TOKENS = 640  # its head has eight more rows


class Released(XToken):
    """With one set K for the micro-batch, and without the terms for sums that are not one."""

    chosen: Tensor | None = None

    def _teacher_means(self, batch: Any, groups: Any) -> Tensor:
        from dskd import losses

        if self.chosen is None:
            return super()._teacher_means(batch, groups)
        logits = batch.teacher.head.logits(batch.teacher.hidden)
        return losses.mean_log_probabilities_of_largest(logits, groups, self.options.temperature, 0, self.chosen)

    def distance(self, batch: Any) -> tuple[Tensor, int]:
        """(L_KD as it is released, the number of groups)."""
        terms = self.terms(batch)
        names = [name for name in terms if name not in ("cross_entropy", "grouped_share")]
        total = torch.stack([terms[name].total for name in names]).sum() - self._mass(batch)
        return total / terms[names[0]].normalizer, int(terms[names[0]].normalizer)

    def _mass(self, batch: Any) -> Tensor:
        """Σ q − Σ p of what is compared, with the other sign for the reverse divergence."""
        student, teacher = groups_of(batch)
        kept = self._kept(student, teacher)
        log_p = self._teacher_means(batch, teacher)
        own = self._student_means(batch.student.head.logits(batch.student.hidden), student)
        if self.options.form == "p_kl":
            q = self.projection.project(own) * (log_p > -torch.inf)
            q, p = q / (q.sum(-1, keepdim=True) + 1e-10), log_p.exp()
        else:
            q, p = own[:, self.matched_student_ids].exp(), log_p[:, self.matched_teacher_ids].exp()
        mass = ((q.sum(-1) - p.sum(-1)) * kept).sum() * self.options.temperature**2
        return -mass if self.options.divergence == "reverse_kl" else mass

    def entropy(self, batch: Any) -> Tensor:
        term: LossTerm = self.terms(batch)["cross_entropy"]
        return term.total / term.normalizer


def options_of(config: dict[str, Any]) -> dict[str, Any]:
    form = "p_kl" if not config["gold_loss"] else "h_kl" if config["xtoken_loss"] else "gold"
    return {
        "form": form,
        "temperature": config["temperature"],
        "divergence": "reverse_kl" if config["reverse_kl"] else "forward_kl",
        "top_k": config["vocab_topk"],
        "ranked_top_k": config["uncommon_topk"],
        "cut_ranks": True,
    }


def projection_of(indices: Tensor, weights: Tensor) -> VocabularyProjection:
    """A stored W [student tokens, 4], -1 for none."""
    students, slots = (indices >= 0).nonzero(as_tuple=True)
    columns, values = indices[students, slots].long(), weights[students, slots]
    kept = values > 0
    rows, ids, shares = (part[kept].numpy() for part in (students, columns, values))
    order = np.lexsort((-shares, rows))
    return VocabularyProjection(rows[order], ids[order], shares[order])


def released(case: dict[str, Any], given: dict[str, Tensor], teacher: str, projection: Any) -> tuple[Any, Any, Any]:
    """(method, batch, leaves: the student's hidden states [texts, length, hidden] and head) of one teacher of a case."""
    config, kept = case["config"], [k for k, mask in enumerate(case["sample_mask"]) if mask]
    hidden = given["in/student_hidden"].clone().requires_grad_()
    weight = given["in/student_head"].clone().requires_grad_()
    size = len(weight)
    head = Head(weight, None, 1.0, 0.0, size)
    student = _rows(given, "student", kept)
    if teacher == "same":
        teacher_head, other = Head(given["in/same_teacher_head"], None, 1.0, 0.0, size), student
        states = given["in/same_teacher_hidden"]
        identity = torch.arange(size)
        projection = projection_of(identity.unsqueeze(-1), torch.ones(size, 1))
        numbers = torch.arange(len(student[0]))
        both = numbers, numbers
    else:
        teacher_head = Head(given["in/teacher_head"], None, 1.0, 0.0, TEACHER_TOKENS)
        other, states = _rows(given, "teacher", kept), given["in/teacher_hidden"]
        both = _numbers(given, student, other, exact=config["exact_token_match_only"])
    method = Released(options_of(config))
    method.use_projection(projection, head, teacher_head, None)
    if teacher == "same":
        method.floor = 1.2e-38
    if config["vocab_topk"] < teacher_head.size:
        largest = teacher_head.logits(states.flatten(0, 1)).amax(0).topk(config["vocab_topk"]).indices
        method.chosen = torch.zeros(teacher_head.size, dtype=torch.bool).index_fill(0, largest, True)
    batch = token_batch(
        head,
        hidden[student[0], student[1]],
        given["in/student_ids"][student[0], student[1] + 1].long(),
        teacher_head,
        states[other[0], other[1]],
        given[f"in/{'student' if teacher == 'same' else 'teacher'}_ids"][other[0], other[1] + 1].long(),
        student_groups=both[0],
        teacher_groups=both[1],
    )
    return method, batch, [hidden, weight]


def _rows(given: dict[str, Tensor], side: str, texts: list[int]) -> tuple[Tensor, Tensor]:
    """(text, place) of the rows that predict a token of these texts."""
    mask = given[f"in/{side}_mask"].bool()
    chosen = torch.zeros(len(mask), dtype=torch.bool).index_fill(0, torch.tensor(texts), True)
    return (mask[:, 1:] & chosen.unsqueeze(-1)).nonzero(as_tuple=True)


def _numbers(given: dict[str, Tensor], student: Any, teacher: Any, *, exact: bool) -> tuple[Tensor, Tensor]:
    """Of each row of either side, the number of its token's chunk; -1 where that does not count or the other side has none of it."""
    valid = given["in/pair_valid"].bool()
    if exact:
        valid = valid & given["in/pair_is_correct"].bool()
    keys = []
    for side, (texts, places) in (("student", student), ("teacher", teacher)):
        chunks = given[f"in/{side}_chunk_id"][texts, places + 1].long()
        counts = (chunks >= 0) & valid[texts, chunks.clamp_min(0)]
        keys.append(torch.where(counts, texts * valid.shape[1] + chunks, -1))
    common = sorted(set(keys[0].tolist()) & set(keys[1].tolist()) - {-1})
    number_of = {key: number for number, key in enumerate(common)}
    return tuple(torch.tensor([number_of.get(key, -1) for key in side.tolist()]) for side in keys)
