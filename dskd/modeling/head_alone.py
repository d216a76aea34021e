"""The output head of a model folder without the model: one tensor of one shard, and what the configuration does to the logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from dskd.modeling.lm_head import Head
from dskd.tokenization.vocabulary import Vocabulary


def read_head(
    folder: Path, vocabulary: Vocabulary, *, dtype: str, device: Any, embedding: bool = False
) -> tuple[Head, Tensor | None]:
    """(the head, its input embedding where that is asked for) of the model in a folder; no layer of it is allocated."""
    raise NotImplementedError
