"""The loss on examples that are not trained on, measured while a student is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dskd.losses.chunked import chunk_size, chunks
from dskd.losses.cross_entropy import cross_entropy_and_hits
from dskd.methods.base import LabelledTokens
from dskd.modeling.lm_head import output_head

if TYPE_CHECKING:
    from dskd.training.trainer import Distiller


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model without dropout, not compiled, for every length would be compiled anew; then as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module in training:
            module.training = True


@torch.no_grad()
def cross_entropy_sums(distiller: Distiller, batches: Iterable[dict[str, Tensor]], device: Any) -> Tensor:
    """(sum of the cross entropy of the labels, their number), float64 [2], of the student as it is, dropout off."""
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    student = distiller.student
    with evaluating(student):
        for batch in batches:
            hidden = distiller.labelled_hidden(batch)
            head = output_head(student, distiller.student_size)
            labels = batch["student_labels"]
            tokens = LabelledTokens(head, hidden, labels)
            for part in chunks(tokens, chunk_size(tokens, distiller.chunk_tokens)):
                logits = head.logits(part.student_hidden, padded=True)
                sums[0] += cross_entropy_and_hits(logits, part.student_labels)[0].double()
            sums[1] += len(labels)
    return sums
