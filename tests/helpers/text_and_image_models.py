"""Folders of tiny models of text and images, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from helpers.tiny_tokenizers import byte_level

VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def write_text_and_image(folder: Path, kind: str) -> tuple[Any, int]:
    """Save a tiny model of this kind with a tokenizer. Returns the model and the number of tokens."""
    import transformers

    tokenizer = byte_level()
    size = len(tokenizer)
    text = SMALL | {
        "num_key_value_heads": 1,
        "vocab_size": size,
        "eos_token_id": 0,
        "bos_token_id": 0,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    if kind == "gemma3":
        vision = VISION | {"image_size": 28, "patch_size": 14}
        config: Any = transformers.Gemma3Config(
            text_config=text | {"head_dim": 16}, vision_config=vision, mm_tokens_per_image=4, image_token_index=size - 1
        )
        model: Any = transformers.Gemma3ForConditionalGeneration(config)
    elif kind == "mistral3":
        vision = VISION | {"model_type": "pixtral", "image_size": 28, "patch_size": 14, "head_dim": 8}
        config = transformers.Mistral3Config(
            text_config=text | {"model_type": "mistral", "head_dim": 16},
            vision_config=vision,
            image_token_index=size - 1,
        )
        model = transformers.Mistral3ForConditionalGeneration(config)
    else:
        vision = {"hidden_size": 16, "intermediate_size": 32, "depth": 1, "num_heads": 2, "out_hidden_size": 32}
        rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
        config = transformers.Qwen2_5_VLConfig(text_config=text | {"rope_parameters": rope}, vision_config=vision)
        model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, size
