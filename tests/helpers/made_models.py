"""Which models of transformers a piece of code makes, and whether their weights are in memory."""

from __future__ import annotations

from typing import Any

import pytest


class MadeModels:
    """All models that are made while a test runs, and not let go of: what they come to hold shows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from transformers import PreTrainedModel

        self.models: list[Any] = []
        begin = PreTrainedModel.__init__

        def keep(model: Any, *arguments: Any, **named: Any) -> None:
            begin(model, *arguments, **named)
            self.models.append(model)

        monkeypatch.setattr(PreTrainedModel, "__init__", keep)

    def in_memory(self) -> set[int]:
        """The hidden sizes of the models of which a parameter is in memory, and not on the meta device alone."""
        return {
            model.config.get_text_config().hidden_size
            for model in self.models
            if any(not parameter.is_meta for parameter in model.parameters())
        }
