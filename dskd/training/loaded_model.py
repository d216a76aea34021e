"""A model of a training with its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd.rollouts.sample_rows import ModelText
from dskd.tokenization.vocabulary import Vocabulary


@dataclass
class LoadedModel:
    """A student or a teacher; `model` is None for a teacher that does not run here."""

    folder: Path
    tokenizer: Any
    vocabulary: Vocabulary  # as far as the head predicts it
    model: Any = None

    def __str__(self) -> str:
        return f"{self.folder} ({self.vocabulary.size} tokens)"

    @property
    def positions(self) -> int | None:
        """Tokens of the longest text that it reads; None where there is no limit, or the model is not here."""
        config = None if self.model is None else self.model.config.get_text_config()
        return getattr(config, "max_position_embeddings", None)

    @property
    def text(self) -> ModelText:
        """How it reads text."""
        return ModelText(self.tokenizer, Vocabulary.from_tokenizer(self.tokenizer), self.positions)
