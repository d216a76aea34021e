from __future__ import annotations

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from dskd.errors import InputError
from dskd.heads import final_hidden_states, output_head

SIZES = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
GEMMA = {**SIZES, "num_key_value_heads": 1, "head_dim": 16}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2)),
    "gemma2, soft-capped": lambda: Gemma2ForCausalLM(Gemma2Config(**GEMMA, final_logit_softcapping=0.5)),
    "gemma3, scaled embedding": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**GEMMA)),
    "cohere, logits multiplied": lambda: CohereForCausalLM(CohereConfig(**SIZES, logit_scale=0.25, pad_token_id=0)),
    "granite, logits divided": lambda: GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=4.0)),
}


@pytest.mark.parametrize("name", MODELS)
def test_head_of_its_input_gives_the_models_own_logits(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    ids = torch.randint(0, 50, (2, 7))
    mask = torch.ones_like(ids)
    positions = torch.arange(7).expand(2, 7)
    hidden = final_hidden_states(model, ids, mask, positions)
    assert hidden.shape == (2, 7, 32)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    torch.testing.assert_close(output_head(model, 50).logits(hidden), expected, rtol=1e-5, atol=1e-5)


def test_padded_rows_are_left_out_and_weights_are_live():
    model = MODELS["llama"]()
    head = output_head(model, 45)
    hidden = torch.randn(3, 32)
    assert head.logits(hidden).shape == (3, 45)
    assert head.logits(hidden, padded=True).shape == (3, 50)
    assert head.weight is model.lm_head.weight
    assert not head.detach().logits(hidden).requires_grad


def test_more_tokens_than_rows_is_an_error_that_names_both_sizes():
    with pytest.raises(InputError, match=r"50 rows.*51 tokens.*fix:"):
        output_head(MODELS["llama"](), 51)
