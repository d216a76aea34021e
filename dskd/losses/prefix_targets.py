"""A teacher's next-token distribution in the tokens of a student, at every token of the student's, by a `PrefixMap`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from dskd.losses.tokens import SideTokens, TokenBatch
from dskd.tokenization.prefix_map import PrefixMap

# Columns of what is known of each of the student's tokens: the teacher's token that it begins in (-1: none), the bytes of that token
# before it, and which part of that token's probability is its own.
ROW, CUT, OWN = 0, 1, 2
_ROWS = 256  # of the teacher's logits at a time, of which one or two numbers a row are kept
_GROUP = 1 << 24  # more bytes than a group has


@dataclass(frozen=True)
class PrefixTable:
    """A `PrefixMap` on a device, and the bytes of the student's tokens (int64 [student tokens])."""

    offset: Tensor
    size: Tensor
    rank: Tensor
    first: Tensor
    begin: Tensor
    end: Tensor
    student_size: Tensor

    @classmethod
    def of(cls, found: PrefixMap, student_tokens: Any, device: torch.device) -> PrefixTable:
        """student_tokens: the bytes of each; None for those without."""
        arrays = {f.name: torch.from_numpy(getattr(found, f.name)).to(device) for f in fields(found)}
        sizes = torch.tensor([len(token or b"") for token in student_tokens], device=device)
        return cls(**arrays, student_size=sizes)


def where_tokens_begin(batch: TokenBatch, table: PrefixTable) -> Tensor:
    """For each of the student's labelled tokens the three columns above, float32 [tokens, 3].

    A token that ends inside the teacher's token it begins in has all of that token's probability. One that goes on beyond it has the
    part with which the teacher goes on as the text does: the product of its probabilities of the tokens in between, and of all tokens
    that begin with the last bytes.
    """
    student, teacher = batch.student, batch.teacher
    tokens = len(student.labels)
    if not tokens or not len(teacher.labels):
        return student.labels.new_full((tokens, 3), -1.0, dtype=torch.float32)
    own, other = _Places(student, table.student_size), _Places(teacher, table.size)
    begins, ends = other.token_at(own.start), other.token_at(own.end - 1)
    # One token on either side are the same event whatever their bytes, as the ends of two texts are.
    alone = own.is_alone & other.is_alone[begins]
    inside = (own.end > own.start) & (other.total[begins] == own.total)
    known = own.valid & (teacher.groups[begins] == student.groups) & (alone | inside)
    cut = torch.where(alone, 0, own.start - other.start[begins])
    goes_on = known & ~alone & (ends > begins)
    log_p = _log_p_of_labels(teacher)
    before = torch.cat([log_p.new_zeros(1), log_p.cumsum(0)])
    between = before[ends] - before[begins + 1]
    last = _log_mass_of_prefix(teacher, ends, own.end - other.start[ends], table)
    part = torch.where(goes_on, (between + last).exp().clamp_max(1.0), 1.0)
    return torch.stack([torch.where(known, begins, -1).float(), cut.float(), part.float()], -1)


class _Places:
    """Where tokens begin and end within their byte groups, in a coordinate that ascends over all groups."""

    def __init__(self, side: SideTokens, sizes: Tensor) -> None:
        own = sizes[side.labels]
        self.valid = side.groups >= 0
        index = torch.arange(len(own), device=own.device)
        group = side.groups.clamp_min(0)
        before = own.cumsum(0) - own
        # The first token of each token's group: groups are stretches of tokens.
        is_first = torch.cat([torch.ones_like(self.valid[:1]), side.groups[1:] != side.groups[:-1]])
        first = torch.where(is_first, index, 0).cummax(0).values
        is_last = torch.cat([is_first[1:], torch.ones_like(is_first[:1])])
        last = torch.where(is_last, index, len(own) - 1).flip(0).cummin(0).values.flip(0)
        self.is_alone = self.valid & (first == last)
        self.total = before[last] + own[last] - before[first]
        self.start = group * _GROUP + before - before[first]
        self.end = self.start + own
        # Tokens of no group have the coordinate of the last that has one, and stand for it.
        self._keys = torch.where(self.valid, self.start, -1).cummax(0).values
        self._known = torch.where(self.valid, index, 0).cummax(0).values

    def token_at(self, places: Tensor) -> Tensor:
        """The token that covers each place; some token where none does."""
        found = torch.searchsorted(self._keys, places, right=True) - 1
        return self._known[found.clamp_min(0)]


@torch.no_grad()
def _log_p_of_labels(teacher: SideTokens) -> Tensor:
    """log p of the teacher's labels, float64 [tokens]."""
    parts = zip(teacher.hidden.split(_ROWS), teacher.labels.split(_ROWS), strict=True)
    found = []
    for hidden, labels in parts:
        logits = teacher.head.logits(hidden).float()
        found.append(logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1))
    return torch.cat(found).double()


@torch.no_grad()
def _log_mass_of_prefix(teacher: SideTokens, rows: Tensor, cuts: Tensor, table: PrefixTable) -> Tensor:
    """log of the probability of all tokens that begin with the first `cuts` bytes of a label, float64 [rows]."""
    found = []
    for some, cut in zip(rows.split(_ROWS), cuts.split(_ROWS), strict=True):
        labels = teacher.labels[some]
        entry = table.offset[labels] + cut.clamp(min=0).minimum(table.size[labels])
        inside = _between(table.rank, table.begin[entry], table.end[entry])
        log_p = teacher.head.logits(teacher.hidden[some]).float().log_softmax(-1)
        found.append(log_p.masked_fill(~inside, -torch.inf).double().logsumexp(-1))
    return torch.cat(found)


def _between(rank: Tensor, begin: Tensor, end: Tensor) -> Tensor:
    return (rank >= begin.unsqueeze(-1)) & (rank < end.unsqueeze(-1))


@torch.no_grad()
def targets_of_prefixes(batch: TokenBatch, places: Tensor, table: PrefixTable, size: int) -> tuple[Tensor, Tensor]:
    """(log t [tokens, student tokens], ρ [tokens]).

    t is the teacher's distribution of the student's next token, among what is known of it; ρ is the teacher's probability of what is
    known, given the bytes before. Rows of tokens that begin in no token of the teacher are uniform, and have ρ = 0.

    Args:
        batch: The tokens, all of the teacher's.
        places: Of `where_tokens_begin`, for the student's tokens in the batch.
        table: The map.
        size: Real tokens of the student.
    """
    teacher = batch.teacher
    known = places[:, ROW] >= 0
    row, cut = places[:, ROW].clamp_min(0).long(), places[:, CUT].long()
    label = teacher.labels[row]
    p = teacher.head.logits(teacher.hidden[row]).float().softmax(-1)
    entry = table.offset[label] + cut.minimum(table.size[label])
    whole = (cut == 0).unsqueeze(-1)
    inside = whole | _between(table.rank, table.begin[entry], table.end[entry])
    stand_for = table.first[table.offset + cut.unsqueeze(-1).minimum(table.size)]
    has_one = inside & (stand_for >= 0) & (whole | (table.size > cut.unsqueeze(-1)))
    mass = torch.where(has_one, p, 0.0)
    of_prefix = torch.where(inside, p, 0.0).sum(-1)
    found = torch.zeros(len(p), size, device=p.device).scatter_add_(-1, stand_for.clamp_min(0), mass)
    # The text itself says which of the student's tokens the teacher's token begins with.
    moved = places[:, OWN] * p.gather(-1, label.unsqueeze(-1)).squeeze(-1)
    had = has_one.gather(-1, label.unsqueeze(-1)).squeeze(-1)
    from_ids = stand_for.gather(-1, label.unsqueeze(-1)).clamp_min(0)
    found.scatter_add_(-1, from_ids, torch.where(had, -moved, 0.0).unsqueeze(-1))
    found.scatter_add_(-1, batch.student.labels.unsqueeze(-1), moved.unsqueeze(-1))
    total = mass.sum(-1) + torch.where(had, 0.0, moved)
    log_t = found.clamp_min_(torch.finfo(torch.float32).tiny).log_() - total.clamp_min(1e-30).log().unsqueeze(-1)
    certainty = torch.where(known, total / of_prefix.clamp_min(1e-30), 0.0).clamp(0.0, 1.0)
    return torch.where(known.unsqueeze(-1), log_t, 0.0), certainty
