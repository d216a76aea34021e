"""Which models see what comes next."""

from __future__ import annotations

import pytest
import torch

from dskd.errors import InputError
from dskd.modeling.causality import check_causal
from helpers.causal_models import KINDS, SIZE, small_model

# Loaded as causal models, and none: encoders without `is_decoder`, and models that are trained in an order of their own.
ENCODERS = {
    *(
        "bert",
        "bert-generation",
        "big_bird",
        "camembert",
        "data2vec-text",
        "electra",
        "ernie",
        "megatron-bert",
        "rembert",
    ),
    *("roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod"),
    *("cpmant", "xlm", "xlnet"),
}


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"prophetnet"}))  # its head is refused before
def test_every_architecture_is_causal_or_refused(kind: str) -> None:
    model = small_model(kind)
    if kind in ENCODERS:
        with pytest.raises(
            InputError, match=rf"{type(model).__name__} predicts at a token depends on the tokens after it.*; fix: "
        ):
            check_causal(model, SIZE)
    else:
        check_causal(model, SIZE)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba", "falcon_h1", "opt", "qwen2_moe"])
def test_causal_models_pass_in_half_precision(kind: str) -> None:
    check_causal(small_model(kind).to(torch.bfloat16), SIZE)


def test_an_encoder_whose_attention_is_causal_is_a_causal_model() -> None:
    from transformers import RobertaConfig, RobertaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    for is_decoder in (True, False):
        torch.manual_seed(0)
        model = RobertaForCausalLM(RobertaConfig(vocab_size=50, is_decoder=is_decoder, **sizes))
        if is_decoder:
            check_causal(model, 50)
        else:
            with pytest.raises(InputError, match="no causal language model"):
                check_causal(model, 50)


def test_the_check_drops_nothing_out_and_leaves_no_trace() -> None:
    model = small_model("gpt2").train()  # with dropout, two forwards would differ at every token
    model.transformer.drop.eval()
    before, state = [module.training for module in model.modules()], torch.get_rng_state()
    check_causal(model, SIZE)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)
