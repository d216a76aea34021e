"""Packed examples are to a model what they are one a row, for every kind of attention; the models are tiny and random."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from dskd import methods
from dskd.data.batch_sampler import supports_packing
from dskd.data.collator import Collator
from dskd.modeling.lm_head import final_hidden_states
from dskd.teachers.live import LiveTeacher
from dskd.tokenization.vocabulary import SharedVocabulary
from dskd.training.distiller import Distiller
from helpers import tiny_world

SIZES = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ROTARY = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64}
CONFIGURATIONS = {
    "llama": transformers.LlamaConfig(**ROTARY),
    "gpt2": transformers.GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=16),
    "mistral, a window of 4": transformers.MistralConfig(**ROTARY, sliding_window=4),
    "gemma 3, sliding and full": transformers.Gemma3TextConfig(
        **ROTARY, head_dim=8, sliding_window=4, layer_types=["sliding_attention", "full_attention"]
    ),
    "qwen 3": transformers.Qwen3Config(**ROTARY, head_dim=8),
}
LENGTHS = (11, 16, 5, 1 + 1, 9, 7, 14)


def _model(name: str, attention: str = "sdpa") -> Any:
    torch.manual_seed(3)
    configuration = CONFIGURATIONS[name]
    return transformers.AutoModelForCausalLM.from_config(configuration, attn_implementation=attention).eval()


def _rows() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(5)
    return [
        {
            "student_ids": torch.randint(61, (length,), generator=generator).tolist(),
            "student_prompt_length": 1 + k % 2 * (length > 4),
        }
        for k, length in enumerate(LENGTHS)
    ]


def _labelled(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    hidden = final_hidden_states(
        model, batch.student.input_ids, batch.student.attention_mask, batch.student.position_ids
    )
    return hidden.flatten(0, 1)[batch.student.labelled]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("row_length", [None, 30, 1000], ids=["rows as the longest", "rows of 30", "one row"])
def test_hidden_states_and_gradients_are_those_of_one_example_a_row(
    name: str, attention: str, row_length: int | None
) -> None:
    model = _model(name, attention)
    results = []
    for collator in (Collator(), Collator(packing=True, row_length=row_length)):
        batch = collator(_rows())
        model.zero_grad()
        hidden = _labelled(model, batch)
        loss = torch.nn.functional.cross_entropy(model.get_output_embeddings()(hidden), batch.student.labels)
        loss.backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((hidden.detach(), loss.item(), gradients))
    (hidden, loss, gradients), (packed_hidden, packed_loss, packed_gradients) = results
    assert (packed_hidden - hidden).abs().max() <= 1e-5 * hidden.abs().max()
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert (packed_gradients - gradients).norm() <= 1e-5 * gradients.norm()


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_has_the_same_loss_and_gradients_packed(name: str) -> None:
    # The two sides are packed independently: the teacher's prompts are longer, so its rows hold other examples than the student's.
    rows = []
    for row in _rows():
        response = len(row["student_ids"]) - row["student_prompt_length"]
        pairs = list(range(response))
        rows.append(
            {
                **row,
                "teacher_ids": [5, 9, 2, *row["student_ids"]],
                "teacher_prompt_length": row["student_prompt_length"] + 3,
                "teacher_pairs": pairs,
                "student_pairs": pairs,
                "teacher_groups": pairs,
                "student_groups": pairs,
            }
        )
    if methods.get(name).requires.on_policy == "always":
        rows = [{**row, "sampled": k % 2 == 0} for k, row in enumerate(rows)]
    every, tokens = np.arange(61), tuple(b" a" if k % 3 == 0 else b"a" for k in range(61))
    results = []
    for collator in (Collator(), Collator("left"), Collator(packing=True), Collator(packing=True, row_length=1000)):
        student, teacher = _model("mistral, a window of 4"), _model("gemma 3, sliding and full")
        torch.manual_seed(0)  # for projectors that start at random
        distiller = Distiller(
            student,
            methods.get(name)(),
            student_size=61,
            teacher=LiveTeacher(teacher, 61) if methods.get(name).requires.teacher else None,
            shared=SharedVocabulary(every, every, every, True, tokens, tokens),
        )
        distiller.method.on_step_begin(distiller.whole_student_head())
        batch = distiller.fetch(tiny_world.pairing_as(name, collator)(rows))
        distiller.precompute_step([batch])
        loss, _ = distiller(batch)
        loss.backward()
        gradients = torch.cat([p.grad.flatten() for p in distiller.parameters() if p.grad is not None])
        results.append((loss.item(), gradients))
    loss, gradients = results[0]
    for other_loss, other_gradients in results[1:]:
        assert other_loss == pytest.approx(loss, rel=1e-5)
        assert (other_gradients - gradients).norm() <= 1e-5 * gradients.norm()


def test_the_layout_is_what_keeps_examples_apart() -> None:
    # The comparison above would see a leak: with positions that run on, examples of a row see those before them.
    model = _model("llama")
    batch = Collator(packing=True, row_length=1000)(_rows())
    running = replace(
        batch, student=replace(batch.student, position_ids=torch.arange(batch.student.input_ids.shape[1])[None])
    )
    apart, together = _labelled(model, batch), _labelled(model, running)
    assert (together - apart).abs().max() > 1e-2 * apart.abs().max()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_attention_models_support_packing(name: str, attention: str) -> None:
    assert supports_packing(_model(name, attention))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_half_precision_is_no_reason_to_refuse(name: str, dtype: torch.dtype) -> None:
    assert supports_packing(_model(name).to(dtype))


RECURRENT = {
    "mamba": transformers.MambaConfig(vocab_size=61, hidden_size=32, num_hidden_layers=2, state_size=8),
    "mamba 2": transformers.Mamba2Config(
        vocab_size=61,
        hidden_size=32,
        num_hidden_layers=2,
        state_size=8,
        num_heads=4,
        head_dim=16,
        n_groups=1,
        chunk_size=8,
    ),
    "recurrent gemma": transformers.RecurrentGemmaConfig(
        **SIZES, intermediate_size=48, lru_width=32, attention_window_size=8, block_types=("recurrent", "attention")
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", RECURRENT)
def test_a_state_that_runs_through_the_row_is_found(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(RECURRENT[name]).eval().to(dtype)
    assert not supports_packing(model)


def test_a_model_that_looks_around_itself_is_found() -> None:
    # Relative positions by bias: BLOOM builds them from the attention mask and ignores position ids.
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.BloomConfig(vocab_size=61, hidden_size=32, n_layer=2, n_head=4)
    )
    model.train()
    assert not supports_packing(model)
    assert model.training  # asked in passing: the mode is as it was
