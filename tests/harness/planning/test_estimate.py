"""Estimates: parameters against the models themselves, operations and memory against sums done by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from dskd.training.options import TrainingOptions
from harness.costs.formulas import Lengths, adapter_parameters, steps_of, training_memory, training_operations
from harness.costs.model_shapes import PUBLISHED_MODELS, Shape, shape_of
from harness.costs.work import Device
from harness.planning.estimate import Estimate, estimate
from harness.planning.plan import choose
from harness.steps.data import _WORLD_SIZES
from harness.steps.training import find_launch, launch_shape

Content = dict[str, Any]

GPT2 = PUBLISHED_MODELS["openai-community/gpt2"]
LLAMA = PUBLISHED_MODELS["meta-llama/Llama-2-7b-hf"]


def options(**chosen: Any) -> dict[str, Any]:
    return TrainingOptions.model_validate({"steps": 10, **chosen}).model_dump()


@pytest.fixture
def estimate_of(write_matrix: Callable[[Any], Path]) -> Callable[..., Estimate]:
    def of(content: Content, **settings: Any) -> Estimate:
        choice = choose(str(write_matrix(content)))
        assert not choice.missing
        return estimate(choice.matrix, choice.cells, Device(**settings))

    return of


@pytest.mark.parametrize("name", list(PUBLISHED_MODELS))
def test_a_shape_has_as_many_parameters_as_the_model(name: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config

    shape = PUBLISHED_MODELS[name]
    if shape.gated:
        config = (Qwen2Config if shape.query_bias else LlamaConfig)(
            num_hidden_layers=shape.layers,
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_value_heads,
            vocab_size=shape.vocabulary,
            tie_word_embeddings=shape.tied,
        )
    else:
        config = GPT2Config(n_layer=shape.layers, n_embd=shape.hidden, n_head=shape.heads)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape_of(config.to_dict()) == shape


# As their authors and cards count them.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("openai-community/gpt2", 124_439_808),
        ("MiniLLM/teacher-gpt2-1.5B", 1_557_611_200),
        ("Qwen/Qwen1.5-1.8B", 1_836_828_672),
        ("TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T", 1_100_048_384),
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
        ("mistralai/Mistral-7B-v0.1", 7_241_732_096),
        ("Qwen/Qwen2.5-Math-7B", 7_615_616_512),
        ("meta-llama/Llama-3.2-1B", 1_235_814_400),
    ],
)
def test_the_table_of_shapes_holds_the_published_models(name: str, parameters: int) -> None:
    assert PUBLISHED_MODELS[name].parameters == parameters


def test_a_configuration_that_does_not_say_its_shape() -> None:
    assert shape_of({"model_type": "mamba", "hidden_size": 8, "num_hidden_layers": 2, "vocab_size": 9}) is None


def test_an_epoch_has_as_many_steps_as_the_published_run() -> None:
    dolly = Lengths(11_435, 80.0, 90.0)
    per_device = {"steps": None, "batch_size": 4, "gradient_accumulation_steps": 2}
    steps, examples = steps_of(options(**per_device, epochs=20), dolly, 4)
    assert steps == 7140
    assert examples == 7140 * 32
    # 2,859 batches, 4 of which make a step: the last of 715 has only 3.
    per_device["gradient_accumulation_steps"] = 4
    assert steps_of(options(**per_device, epochs=1), dolly, 1) == (715, 11_435)
    assert steps_of(options(steps=7, batch_size=4, gradient_accumulation_steps=2), dolly, 3) == (7, 168)
    assert steps_of(options(steps=3, batch_tokens=1700), dolly, 1) == (3, 30)


def test_steps_are_those_that_the_trainer_makes() -> None:
    from dskd.data.batch_sampler import EpochBatches

    for processes in (1, 2, 3):
        batches = len(EpochBatches([5] * 101, seed=0, batch_size=4, world=processes))
        steps, _ = steps_of(options(steps=None, epochs=1, batch_size=4), Lengths(101, 3.0, 2.0), processes)
        assert steps == batches


def test_operations_are_six_a_parameter_and_token_and_heads_are_at_labels_alone() -> None:
    head = 50_257 * 768
    assert GPT2.layer_parameters == 12 * (12 * 768**2 + 13 * 768)
    assert training_operations(GPT2, options(), 1000, 300) == 6 * GPT2.layer_parameters * 1000 + 6 * head * 300
    again = training_operations(GPT2, options(gradient_checkpointing=True), 1000, 300)
    assert again - training_operations(GPT2, options(), 1000, 300) == 2 * GPT2.layer_parameters * 1000


def test_an_adapter_is_as_large_as_peft_makes_it_and_saves_the_gradients_of_what_is_frozen() -> None:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from dskd.modeling.lora import LoraOptions, add_adapter

    config = LlamaConfig(
        num_hidden_layers=2,
        hidden_size=16,
        intermediate_size=24,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
    )
    shape = shape_of(config.to_dict())
    assert shape is not None
    lora = options(lora={"rank": 3})
    with torch.device("cpu"):
        model = add_adapter(AutoModelForCausalLM.from_config(config), LoraOptions(rank=3), seed=0)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert adapter_parameters(shape, lora) == trained
    assert training_operations(shape, lora, 10, 4) == (
        10 * (4 * shape.layer_parameters + 6 * trained) + 4 * 4 * shape.head_parameters
    )


def test_memory_is_weights_gradients_moments_and_activations() -> None:
    one = {"processes": 1, "sharded": ""}
    chosen = options(batch_size=2, max_length=100)
    activations = 200 * 768 * 12 * 34 * 2  # float32
    assert training_memory(GPT2, chosen, one) == 16 * GPT2.parameters + activations
    half = options(batch_size=2, max_length=100, dtype="bfloat16")
    assert training_memory(GPT2, half, one) == 18 * GPT2.parameters + activations / 2
    few = options(batch_size=2, max_length=100, gradient_checkpointing=True)
    assert training_memory(GPT2, few, one) < 16 * GPT2.parameters + activations / 5
    # What is spread over 8 GPUs: everything, or all but the weights.
    everything = training_memory(GPT2, chosen, {"processes": 8, "sharded": "FSDP"})
    assert everything == 2 * GPT2.parameters + activations
    assert (
        training_memory(GPT2, chosen, {"processes": 8, "sharded": "DEEPSPEED"}) == 5.5 * GPT2.parameters + activations
    )
    adapter = adapter_parameters(LLAMA, options(lora={"rank": 256}))
    frozen = training_memory(LLAMA, options(lora={"rank": 256}, batch_size=1, max_length=2), one)
    assert frozen == 4 * LLAMA.parameters + 16 * adapter + 2 * 4096 * 32 * 34 * 2


def test_a_teacher_runs_once_for_all_or_in_every_training(tiny: Content, estimate_of: Callable[..., Estimate]) -> None:
    tiny["seeds"] = [1, 2]
    tiny["pairs"] = [{"teacher": "teacher", "student": "same", "methods": ["sft", "kd", "dskd-v2"]}]
    work = estimate_of(tiny).work
    assert [one.kind for one in work] == ["model", "train", "train", "teacher-cache", *["train"] * 4]
    cache, cached = work[3], {one.what: one for one in work}
    assert cache.disk_bytes == pytest.approx(24 * (32 / 3.2 + 1) * 32 * 4)
    tiny["teacher_outputs"] = {"kind": "live"}
    live = {work.what: work for work in estimate_of(tiny).work}
    shape = Shape(1, 32, 32, 2, 2, 16, 896, tied=False)
    for method in ("kd", "dskd-v2"):
        name = f"teacher__same/{method}/seed1"
        difference = live[name].operations - cached[name].operations
        assert difference == pytest.approx(2 * shape.layer_parameters * live[name].tokens)
        assert live[name].bytes > cached[name].bytes
    sft, kd, dual = (cached[f"teacher__same/{method}/seed1"] for method in ("sft", "kd", "dskd-v2"))
    assert sft == live[sft.what]
    labelled = 4 * (32 / 3.2 + 1)
    assert kd.operations - sft.operations == pytest.approx(2 * 896 * 32 * labelled)
    assert dual.operations - sft.operations == pytest.approx((10 * 896 * 32 + 10 * 32 * 32) * labelled)


def test_a_variant_is_estimated_with_its_own_training_and_signal(
    tiny: Content, estimate_of: Callable[..., Estimate]
) -> None:
    live = {"method": "kd", "training": {"steps": 6}, "teacher_outputs": {"kind": "live"}}
    tiny["methods"] = {"kd-live": live, "kd-live-too": {**live, "training": {}}}
    tiny["pairs"] = [{"teacher": "teacher", "student": "same", "methods": ["kd", "kd-live", "kd-live-too"]}]
    work = {one.what: one for one in estimate_of(tiny).work}
    assert len([one for one in work.values() if one.kind == "teacher-cache"]) == 1
    kd, longer, same = (work[f"teacher__same/{name}/seed1"] for name in ("kd", "kd-live", "kd-live-too"))
    assert (kd.steps, longer.steps, same.steps) == (2, 6, 2)
    shape = Shape(1, 32, 32, 2, 2, 16, 896, tied=False)
    assert same.operations - kd.operations == pytest.approx(2 * shape.layer_parameters * kd.tokens)
    assert longer.operations == pytest.approx(3 * same.operations)


def test_a_method_that_needs_whole_examples_keeps_the_logits_of_a_batch(
    tiny: Content, estimate_of: Callable[..., Estimate]
) -> None:
    tiny["training"] |= {"batch_size": 64, "max_length": 4000}
    tiny["pairs"] = [{"teacher": "teacher", "student": "cross", "methods": ["dskd-v1-cma", "dskd-v2-eta"]}]
    unfused, fused = (work.bytes for work in estimate_of(tiny).work if work.kind == "train")
    labelled = 64 * 4000 * (32 / 3.2 + 1) / (148 / 3.2 + 1)
    chunk = 64 * 2**20 // (4 * 896)
    assert unfused - fused == pytest.approx(896 * 4 * (6.5 * labelled - 12 * chunk))


@pytest.mark.parametrize("name", ["teacher", "pretraining", "student"])
def test_the_sizes_of_the_small_world_are_those_of_its_files(name: str, tmp_path: Path) -> None:
    from harness.smallworld.world import write_world

    write_world(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "train" / f"{name}.jsonl").read_text().splitlines()]
    size = _WORLD_SIZES[name]
    assert size.examples == len(rows)
    for key, mean in (("prompt", size.prompt_bytes), ("output", size.response_bytes)):
        assert sum(len(row[key].encode()) for row in rows) / len(rows) == pytest.approx(mean, abs=0.5)


def test_a_file_that_is_here_is_counted_and_a_limit_holds(
    tiny: Content, estimate_of: Callable[..., Estimate], tmp_path: Path
) -> None:
    rows = [{"question": "four", "answer": "é" * 10}, {"question": "sixsix", "answer": "ten bytes!"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny["data"]["rows"] = {"file": str(tmp_path / "rows.jsonl"), "prompt": "Q: {question}", "output": "{answer}"}
    tiny["training"] = {"data": "rows", "epochs": 2, "batch_size": 1}
    found = estimate_of(tiny)
    assert any(text.startswith("data rows: 2 examples, 8 + 15 bytes (counted)") for text in found.assumptions)
    training = next(work for work in found.work if work.kind == "train")
    assert training.steps == 4
    assert training.tokens == pytest.approx(4 * (8 / 4 + 15 / 4 + 1))
    tiny["data"]["rows"]["limit"] = 1
    assert next(work for work in estimate_of(tiny).work if work.kind == "train").steps == 2


def test_hours_follow_from_the_peak_and_its_use(tiny: Content, estimate_of: Callable[..., Estimate]) -> None:
    full = estimate_of(tiny, peak_tflops=100.0, utilization=1.0)
    half = estimate_of(tiny, peak_tflops=100.0, utilization=0.5)
    for one, other in zip(full.work, half.work, strict=True):
        assert one.gpu_hours == pytest.approx(one.operations / 1e14 / 3600)
        assert other.gpu_hours == pytest.approx(2 * one.gpu_hours)
    assert half.assumptions[0] == "one GPU of 100 TFLOP/s at a utilization of 50%"


def test_processes_are_those_of_the_launch() -> None:
    def launch(processes: int | None = None, accelerate_config: str | None = None) -> tuple[int, str]:
        count, path = find_launch(processes, accelerate_config)
        return count, launch_shape(path)[1]

    assert launch() == (1, "")
    assert launch(3) == (3, "")
    assert launch(accelerate_config="ddp-1x8") == (8, "")
    assert launch(accelerate_config="fsdp2-1x8") == (8, "FSDP")
    assert launch(accelerate_config="zero2-1x8") == (8, "DEEPSPEED")


def test_a_model_without_a_known_shape_is_named(tiny: Content, estimate_of: Callable[..., Estimate]) -> None:
    tiny["models"]["same"]["config"] = {"model_type": "mamba"}
    tiny["pairs"] = [{"teacher": "teacher", "student": "same", "methods": ["sft"]}]
    with pytest.raises(InputError, match=r"models\.same: its configuration does not say its shape"):
        estimate_of(tiny)
