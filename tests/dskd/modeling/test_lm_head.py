from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from dskd.errors import InputError
from dskd.modeling import lm_head as heads
from dskd.modeling.lm_head import Head, check_head, final_hidden_states, output_head, whole_output_head
from helpers.causal_models import KINDS, NOT_SMALL, SIZE, small_model

# Their heads are no plain map of one hidden state at each position.
REFUSED = {"prophetnet"}
# Every way in which a model changes its logits, and a model that does it: (scale, soft-cap).
TRANSFORMED = {
    "cohere": (0.25, 0.0),
    "cohere2": (0.25, 0.0),
    "falcon_h1": (0.3, 0.0),
    "gemma2": (1.0, 7.0),
    "gemma3_text": (1.0, 7.0),
    "granite": (0.2, 0.0),
    "hyperclovax": (5.0, 0.0),
    "recurrent_gemma": (1.0, 7.0),
    "xlstm": (1.0, 7.0),
}


def _inputs(length: int = 7) -> dict[str, torch.Tensor]:
    ids = torch.randint(0, SIZE, (2, length), generator=torch.Generator().manual_seed(1))
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.arange(length).expand(2, length),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_causal_architectures_head_is_right_or_refused(kind: str) -> None:
    model = small_model(kind)
    if kind in REFUSED:
        with pytest.raises(InputError, match="fix:"):
            check_head(model, SIZE)
        return
    check_head(model, SIZE)
    inputs = _inputs()
    with torch.no_grad():
        hidden = final_hidden_states(model, **inputs)
        try:
            given = model(**inputs, use_cache=False).logits
        except TypeError:  # takes no positions
            given = model(inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False).logits
        ours = output_head(model, SIZE).logits(hidden)
    assert hidden.shape[:2] == (2, 7)
    torch.testing.assert_close(ours, given[..., :SIZE], rtol=1e-4, atol=1e-4)


def test_nearly_all_architectures_are_covered() -> None:
    assert set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) >= NOT_SMALL
    assert len(KINDS) >= 155


@pytest.mark.parametrize("kind", TRANSFORMED)
def test_factors_and_soft_caps_are_found(kind: str) -> None:
    head = output_head(small_model(kind), SIZE)
    assert (head.scale, head.softcap) == pytest.approx(TRANSFORMED[kind])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", TRANSFORMED)
def test_a_transformation_that_is_not_known_is_an_error_that_names_the_model(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model(kind).to(dtype)
    check_head(model, SIZE)
    monkeypatch.setattr(heads, "_FACTORS", {})
    monkeypatch.setattr(heads, "_SOFTCAPS", ())
    with pytest.raises(InputError, match=f"{type(model).__name__}: transforms its logits in a way.*fix:"):
        check_head(model, SIZE)


def test_the_check_finds_a_weak_soft_cap_on_logits_that_are_far_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model("gemma2")
    model.config.final_logit_softcapping = 50.0  # a random model's logits are below 1
    check_head(model, SIZE)
    monkeypatch.setattr(heads, "_SOFTCAPS", ())
    with pytest.raises(InputError, match="transforms its logits"):
        check_head(model, SIZE)


def test_the_check_leaves_no_trace() -> None:
    model = small_model("gpt2").train()
    model.transformer.drop.eval()
    before, state = [module.training for module in model.modules()], torch.get_rng_state()
    check_head(model, SIZE)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.lm_head._forward_pre_hooks


def _llama(**options: Any) -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, **sizes, **options)).eval()


def test_padded_rows_are_left_out_and_weights_are_live() -> None:
    model = _llama()
    head = output_head(model, 45)
    hidden = torch.randn(3, 32)
    assert head.logits(hidden).shape == (3, 45)
    assert head.logits(hidden, padded=True).shape == (3, 50)
    assert head.weight is model.lm_head.weight
    assert not head.detach().logits(hidden).requires_grad


def test_a_padded_row_never_wins_and_carries_no_probability() -> None:
    weight = torch.randn(20, 8)
    weight[15:] = 100.0
    head = Head(weight, None, 1.0, 0.0, 15)
    hidden = torch.ones(4, 8)
    assert (head.logits(hidden).argmax(-1) < 15).all()
    assert (head.logits(hidden, padded=True).argmax(-1) >= 15).all()
    torch.testing.assert_close(head.logits(hidden).softmax(-1).sum(-1), torch.ones(4))


def test_a_tied_head_is_the_embedding() -> None:
    model = _llama(tie_word_embeddings=True)
    assert output_head(model, 50).weight is model.get_input_embeddings().weight


def test_more_tokens_than_rows_is_an_error_that_names_both_sizes() -> None:
    for head in (output_head, whole_output_head):
        with pytest.raises(InputError, match=r"50 rows.*51 tokens.*fix:"):
            head(_llama(), 51)


def test_hidden_states_need_no_mask() -> None:
    model, inputs = _llama(), _inputs()
    inputs["input_ids"] %= 50
    expected = final_hidden_states(model, **inputs)
    torch.testing.assert_close(final_hidden_states(model, **inputs | {"attention_mask": None}), expected)


@pytest.mark.parametrize("targets", [["q_proj"], "all-linear"])
def test_the_head_of_a_model_with_an_adapter_is_the_frozen_one_of_the_model(targets: list[str] | str) -> None:
    model = _llama()
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM"))
    head = whole_output_head(adapted, 50)
    assert head.weight is model.lm_head.weight
    assert not head.weight.requires_grad
    check_head(adapted, 50)


@pytest.mark.parametrize(
    "options", [{"target_modules": ["lm_head"]}, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}]
)
def test_an_adapter_on_the_head_is_an_error(options: dict[str, list[str]]) -> None:
    adapted = get_peft_model(_llama(), LoraConfig(r=2, task_type="CAUSAL_LM", **options))
    with pytest.raises(InputError, match=r"not linear; fix: .*without an adapter on its head"):
        output_head(adapted, 50)


def test_a_quantised_head_is_an_error() -> None:
    model = _llama()
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(InputError, match="quantised; fix: leave lm_head out"):
        output_head(model, 50)


def test_a_model_without_a_linear_head_is_an_error() -> None:
    model = _llama()
    model.lm_head = torch.nn.Identity()
    with pytest.raises(InputError, match="the output head is Identity, not linear; fix:"):
        output_head(model, 50)


@pytest.fixture
def one_process() -> Iterator[Any]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_head_that_fsdp_spread_is_gathered(one_process: Any) -> None:
    model = _llama()
    expected = model.lm_head.weight.detach().clone()
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    assert isinstance(model.lm_head.weight, DTensor)
    head = whole_output_head(model, 45)
    assert not isinstance(head.weight, DTensor)
    assert head.weight.requires_grad
    torch.testing.assert_close(head.weight.detach(), expected)
    check_head(model, 45)
