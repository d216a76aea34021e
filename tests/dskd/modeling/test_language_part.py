"""Models of text and images: the language part is taken where it stands alone, and answers as it does inside the whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dskd.modeling.lm_head import check_head, final_hidden_states, output_head
from dskd.modeling.loading import load_model
from helpers.text_and_image_models import write_text_and_image


@pytest.mark.parametrize(
    ("kind", "taken"),
    [
        ("gemma3", "Gemma3ForCausalLM"),
        ("mistral3", "MistralForCausalLM"),
        ("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration"),
    ],
)
def test_text_is_answered_as_by_the_whole_model(tmp_path: Path, kind: str, taken: str) -> None:
    whole, size = write_text_and_image(tmp_path / "whole", kind)
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
    _, size = write_text_and_image(tmp_path / "whole", kind)
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
