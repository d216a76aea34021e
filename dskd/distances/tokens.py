"""The numbers of each token: of one model by itself, and of both where their tokens are aligned.

Notation: p the teacher's distribution of the next token, q the student's, O the vocabulary in which they are compared.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dskd import losses
from dskd.losses.tokens import SideTokens
from dskd.modeling.lm_head import Head
from dskd.tokenization.vocabulary import SharedVocabulary

LOGITS_AT_ONCE = 2**24  # float32 logits of one model that are in memory at a time: 64 MiB


def blocks(tokens: int, vocabulary: int) -> Iterator[slice]:
    """Slices that cover so many tokens, of as many as have few enough logits."""
    step = max(1, LOGITS_AT_ONCE // vocabulary)
    for first in range(0, tokens, step):
        yield slice(first, min(tokens, first + step))


def own_numbers(head: Head, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(−Σ_v q(v) log q(v), log q(label)) of a model at each of its labelled tokens, both [tokens] in float32, in nats.

    Args:
        head: The model's.
        hidden: [tokens, hidden], inputs of the head.
        labels: [tokens].
    """
    entropies, likelihoods = [hidden.new_zeros(0).float()], [hidden.new_zeros(0).float()]
    for place in blocks(len(hidden), len(head.weight)):
        log_q = head.logits(hidden[place]).float().log_softmax(-1)
        entropies.append(torch.special.entr(log_q.exp()).sum(-1))
        likelihoods.append(log_q.gather(-1, labels[place][:, None])[:, 0])
    return torch.cat(entropies), torch.cat(likelihoods)


class Comparison:
    """Both models' distributions at pairs of tokens, in a space that both have.

    Where the vocabularies are one, that is the vocabulary. Of two it is O: the pairs of ids for one byte string and of the ends of
    sequence, with both distributions renormalised on it, as strict-kd has it. Of the teacher's k most probable tokens alone it is
    those (of two vocabularies those in O), and one outcome for all others: merging outcomes never raises a divergence, so that both
    are lower bounds.

    Args:
        shared: What the vocabularies have in common.
        k: Of how many of the most probable tokens of each the overlap is taken.
        device: Of the logits.
    """

    def __init__(self, shared: SharedVocabulary, k: int, device: torch.device) -> None:
        self.same, self.most = shared.same, min(k, len(shared))
        self._teacher_ids = torch.from_numpy(shared.teacher_ids).to(device)
        self._student_ids = torch.from_numpy(shared.student_ids).to(device)
        partners = torch.full((len(shared.student_id_of),), -1, dtype=torch.long, device=device)
        self._student_id_of = partners.index_copy(0, self._teacher_ids, self._student_ids)

    def of_states(self, teacher: SideTokens, student: SideTokens) -> Iterator[dict[str, Tensor]]:
        """The numbers of some pairs at a time, from the hidden states of both."""
        for place in self._blocks(teacher, student):
            teacher_logits = teacher.head.logits(teacher.hidden[teacher.pairs[place]]).float()
            student_logits = student.head.logits(student.hidden[student.pairs[place]]).float()
            if not self.same:
                teacher_logits = teacher_logits.index_select(-1, self._teacher_ids)
                student_logits = student_logits.index_select(-1, self._student_ids)
            log_p, log_q = teacher_logits.log_softmax(-1), student_logits.log_softmax(-1)
            best = log_p.topk(self.most, -1)
            yield _divergences(log_p, log_q) | overlap(best.indices, best.values, log_q)

    def of_top_k(self, teacher: SideTokens, student: SideTokens) -> Iterator[dict[str, Tensor]]:
        """The same from the teacher's most probable tokens; the overlap of one vocabulary alone, where enough of them are known."""
        assert teacher.top_k_ids is not None
        for place in self._blocks(teacher, student):
            logits = student.head.logits(student.hidden[student.pairs[place]]).float()
            ids = teacher.top_k_ids[teacher.pairs[place]]
            log_p = teacher.top_k_log_probabilities[teacher.pairs[place]].float()
            partners = ids if self.same else self._student_id_of[ids.clamp_min(0)].masked_fill(ids < 0, -1)
            found = _divergences(*losses.with_rest_bucket_of_top_k(partners, log_p, logits, 1.0))
            best = ids[:, : self.most]
            if self.same and best.shape[-1] == self.most and bool((best >= 0).all()):
                found |= overlap(best, log_p[:, : self.most], logits.log_softmax(-1))
            yield found

    def _blocks(self, teacher: SideTokens, student: SideTokens) -> Iterator[slice]:
        rows = len(student.head.weight) if teacher.head is None else len(teacher.head.weight)
        return blocks(len(student.pairs), max(rows, len(student.head.weight)))


def _divergences(log_p: Tensor, log_q: Tensor) -> dict[str, Tensor]:
    """KL(p ‖ q) and KL(q ‖ p) [pairs] of log-probabilities [pairs, outcomes]."""
    return {
        "kl_teacher_student": losses.forward_kl(log_p, log_q),
        "kl_student_teacher": losses.reverse_kl(log_p, log_q),
    }


def overlap(best: Tensor, log_p: Tensor, log_q: Tensor) -> dict[str, Tensor]:
    """How many of the teacher's k most probable tokens are among the student's, and Σ −p(log p − log q) over those [pairs].

    Args:
        best: [pairs, k], the teacher's.
        log_p: [pairs, k], theirs.
        log_q: [pairs, vocabulary], the student's, of whose k most probable tokens the others are.
    """
    students = log_q.topk(best.shape[-1], -1).indices
    both = (best[:, :, None] == students[:, None, :]).any(-1)
    of_teacher = -log_p.exp() * (log_p - log_q.gather(-1, best).clamp_min(-1e3))
    return {"overlapping": both.sum(-1).float(), "advantage": of_teacher.masked_fill(~both, 0.0).sum(-1)}
