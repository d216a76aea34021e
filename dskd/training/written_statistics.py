"""What the weights that write a text think of it, for steps at which the weights are others (`SideTokens.written_*`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dskd.data.collator import SAMPLED, WRITTEN, WRITTEN_TOP_K, WRITTEN_TOP_K_IDS
from dskd.data.rows import label_spans
from dskd.losses.chunked import chunk_size, chunks
from dskd.losses.tokens import SideTokens, TokenBatch
from dskd.modeling.eval_mode import evaluating
from dskd.modeling.lm_head import labelled_hidden_states, output_head
from dskd.rollouts.several import ROWS
from dskd.training.distiller import StudentModule


@torch.no_grad()
def note_written(
    distiller: StudentModule,
    rows: Sequence[dict[str, Any]],
    side_of: Callable[[Sequence[dict[str, Any]]], SideTokens],
    *,
    rows_at_once: int,
) -> None:
    """Add to rows what the student's weights as they are think of their labels, dropout off, at temperature 1.

    log q of each label where the student wrote it; where the method asks for them, also the k most probable tokens of every label's
    distribution and their log q, k being the method's option `top_k`. Nothing where the method asks for nothing.

    Args:
        distiller: The student with its method.
        rows: To be trained on later; changed in place.
        side_of: Rows to the student's tokens on its device.
        rows_at_once: How many rows a pass of the student takes.
    """
    kind = distiller.method.requires.written_statistics
    if kind == "none":
        return
    k = min(distiller.method.options.top_k, distiller.student_size) if kind == "top_k" else 0
    wanted = [row for row in rows if row[SAMPLED] or k]
    with evaluating(distiller.student):
        for first in range(0, len(wanted), rows_at_once):
            part = wanted[first : first + rows_at_once]
            log_q, ids, top = (values.cpu() for values in _statistics(distiller, side_of(part), k))
            counts = [_label_count(row) for row in part]
            for row, *own in zip(part, *(values.split(counts) for values in (log_q, ids, top)), strict=True):
                if row[SAMPLED]:
                    row[WRITTEN] = own[0].tolist()
                if k:
                    row |= {WRITTEN_TOP_K_IDS: own[1].tolist(), WRITTEN_TOP_K: own[2].tolist()}


def _statistics(distiller: StudentModule, side: SideTokens, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """(log q of the labels [tokens], ids and log q of the most probable tokens, both [tokens, k]), float32, a chunk at a time."""
    head = output_head(distiller.student, distiller.student_size)
    whole = TokenBatch(
        SideTokens(head=head, hidden=labelled_hidden_states(distiller.student, side), labels=side.labels)
    )
    found = []
    for part in chunks(whole, chunk_size(whole, distiller.chunk_tokens)):
        log_q = head.logits(part.student.hidden).float().log_softmax(-1)
        top, ids = log_q.topk(k, dim=-1)
        found.append((log_q.gather(-1, part.student.labels.unsqueeze(-1)).squeeze(-1), ids, top))
    of_labels, ids, top = (torch.cat(parts) for parts in zip(*found, strict=True))
    return of_labels, ids, top


def _label_count(row: dict[str, Any]) -> int:
    """The student's labels of a row, which are the same in the rows of all its teachers."""
    own = next(iter(row[ROWS].values())) if ROWS in row else row
    return sum(last - first for first, last in label_spans(own, "student"))
