"""A model and a training that are as small as they can be, as a matrix has them."""

from __future__ import annotations

from typing import Any

NEW_MODEL: dict[str, Any] = {
    "config": {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
    },
    "tokenizer": {"small_world": "bytelevel"},
    "seed": 1,
}


def training(steps: int) -> dict[str, Any]:
    """Of so many steps."""
    return {"data": "student", "steps": steps, "batch_size": 2, "max_length": 200}
