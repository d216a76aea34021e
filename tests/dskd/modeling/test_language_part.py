"""Models of text and images: the language part is taken where it stands alone, and answers as it does inside the whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dskd.modeling.lm_head import check_head, final_hidden_states, output_head
from dskd.modeling.loading import load_model
from helpers.tiny_tokenizers import byte_level

VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def _write(folder: Path, kind: str) -> tuple[Any, int]:
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


@pytest.mark.parametrize(
    ("kind", "taken"),
    [
        ("gemma3", "Gemma3ForCausalLM"),
        ("mistral3", "MistralForCausalLM"),
        ("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration"),
    ],
)
def test_text_is_answered_as_by_the_whole_model(tmp_path: Path, kind: str, taken: str) -> None:
    whole, size = _write(tmp_path / "whole", kind)
    model = load_model(tmp_path / "whole")
    assert type(model).__name__ == taken
    ids = torch.randint(0, size - 1, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    with torch.no_grad():
        expected = whole(input_ids=ids, attention_mask=mask).logits
        assert torch.equal(model(input_ids=ids, attention_mask=mask).logits, expected)
        # As training reads it: hidden states with positions of their own, then the head.
        check_head(model, size)
        hidden = final_hidden_states(model, ids, mask, torch.arange(9).expand(2, 9))
        logits = output_head(model, size).logits(hidden)
    torch.testing.assert_close(logits, expected)
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


@pytest.mark.parametrize("kind", ["gemma3", "mistral3"])
def test_a_language_part_is_trained_and_saved_as_a_text_model(tmp_path: Path, kind: str) -> None:
    _, size = _write(tmp_path / "whole", kind)
    model = load_model(tmp_path / "whole").train()
    ids = torch.randint(0, size - 1, (2, 9), generator=torch.Generator().manual_seed(1))
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == model.config.tie_word_embeddings
    model.save_pretrained(tmp_path / "student")
    assert "text_config" not in json.loads((tmp_path / "student" / "config.json").read_text())
    again = load_model(tmp_path / "student")
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
