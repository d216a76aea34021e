"""A student that trains an adapter (LoRA), a teacher that is one, and a quantised teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dskd.errors import InputError
from dskd.modeling.lm_head import output_head
from dskd.modeling.loading import load_model, require_model_folder
from dskd.modeling.lora import ADAPTER, LoraOptions, add_adapter, is_adapted, save_merged
from dskd.training.run import TrainingOptions, train

LORA = {"rank": 4, "alpha": 16}


def _logits(model: Any) -> torch.Tensor:
    ids = torch.arange(12).view(2, 6)
    with torch.no_grad():
        return model.eval()(ids).logits


def _adapted(folder: Path, seed: int = 0, **options: Any) -> Any:
    """An adapter that changes something: peft's starts as zero."""
    model = add_adapter(load_model(folder), LoraOptions(**LORA, **options), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
    return model


@pytest.mark.parametrize("name", ["same", "cross"])
def test_an_adapter_alone_is_trained_and_the_head_is_frozen(world: Path, name: str) -> None:
    base = load_model(world / name)
    before = _logits(base)
    model = add_adapter(base, LoraOptions(**LORA), seed=1)
    assert is_adapted(model)
    torch.testing.assert_close(_logits(model), before, rtol=0, atol=0)
    trained = [key for key, value in model.named_parameters() if value.requires_grad]
    assert trained
    assert all("lora_" in key for key in trained)
    assert not output_head(model, 300).weight.requires_grad


def test_the_seed_makes_the_adapter_and_moves_no_other_random_number(world: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = (
        dict(add_adapter(load_model(world / "cross"), LoraOptions(), seed).named_parameters()) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.rand(3), expected)
    name = next(key for key in first if "lora_A" in key)
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_modules_that_the_model_does_not_have_are_refused(world: Path) -> None:
    with pytest.raises(InputError, match=r"lora\.target_modules: .*; fix: name modules of the model"):
        add_adapter(load_model(world / "cross"), LoraOptions(target_modules=["attention_of_another"]), 0)


@pytest.mark.parametrize("name", ["same", "cross"])
def test_the_merged_folder_is_an_ordinary_model_with_the_adapters_logits(
    world: Path, tmp_path: Path, name: str
) -> None:
    model = _adapted(world / name)
    expected = _logits(model)
    save_merged(model, AutoTokenizer.from_pretrained(world / name), tmp_path)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(_logits(merged), expected, rtol=1e-4, atol=1e-5)
    assert (expected - _logits(load_model(world / name))).abs().max() > 1e-2
    assert not any("lora" in key for key in merged.state_dict())
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["model.safetensors"]
    # What stands beside it is the adapter of the student that training began with.
    torch.testing.assert_close(_logits(load_model(tmp_path / ADAPTER)), expected, rtol=1e-4, atol=1e-5)


def _train(
    world: Path, output: Path, teacher: Path | str = "teacher", method: str = "dskd-v2-eta", **changes: Any
) -> Any:
    return train(
        data=world / "cross-data",
        student=world / "cross",
        teacher=world / teacher,
        method=method,
        options=TrainingOptions(
            **{"steps": 15, "batch_size": 10, "learning_rate": 1e-2, "logging_steps": 1, **changes}
        ),
        seed=3,
        output=output,
    )


@pytest.mark.parametrize("method", ["sft", "dskd-v2-eta"])
def test_a_student_learns_through_an_adapter_and_keeps_its_head(world: Path, tmp_path: Path, method: str) -> None:
    report = _train(world, tmp_path / "run", method=method, lora=LORA, steps=40)
    still = _train(world, tmp_path / "still", method=method, lora=LORA, steps=40, learning_rate=1e-12)
    assert report.losses["cross_entropy"] < still.losses["cross_entropy"] - 0.01
    before, after = load_model(world / "cross"), load_model(tmp_path / "run" / "model")
    assert torch.equal(before.get_output_embeddings().weight, after.get_output_embeddings().weight)
    assert not torch.equal(before.model.layers[0].mlp.up_proj.weight, after.model.layers[0].mlp.up_proj.weight)


@pytest.fixture
def adapter_teacher(world: Path, tmp_path: Path) -> tuple[Path, Path]:
    """(folder of an adapter, folder of the model it amounts to)"""
    model = _adapted(world / "teacher")
    tokenizer = AutoTokenizer.from_pretrained(world / "teacher")
    model.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    save_merged(model, tokenizer, tmp_path / "merged")
    return tmp_path / "adapter", tmp_path / "merged"


def _name_base(folder: Path, name: str | None) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": name}))


def test_an_adapter_as_a_teacher_equals_the_merged_model(
    world: Path, tmp_path: Path, adapter_teacher: tuple[Path, Path]
) -> None:
    adapter, merged = adapter_teacher
    require_model_folder(adapter)
    assert torch.equal(_logits(load_model(adapter)), _logits(load_model(merged)))
    losses = [_train(world, tmp_path / f"to-{teacher.name}", teacher, steps=2).losses for teacher in adapter_teacher]
    assert losses[0] == losses[1]
    assert losses[0] != _train(world, tmp_path / "to-base", steps=2).losses


def test_the_base_model_may_be_named_from_the_adapters_folder(world: Path, adapter_teacher: tuple[Path, Path]) -> None:
    adapter, merged = adapter_teacher
    (adapter.parent / "base").symlink_to(world / "teacher")
    _name_base(adapter, "../base")
    assert torch.equal(_logits(load_model(adapter)), _logits(load_model(merged)))


@pytest.mark.parametrize("name", ["somebody/model-7b", "/nowhere/base", None])
def test_an_adapter_without_its_base_model_is_refused(adapter_teacher: tuple[Path, Path], name: str | None) -> None:
    _name_base(adapter_teacher[0], name)
    with pytest.raises(
        InputError, match=r"adapter_config\.json: .*base.*; fix: (.*or )?set (base_model_name_or_path|it) to"
    ):
        require_model_folder(adapter_teacher[0])


def test_an_adapter_of_another_model_is_refused(world: Path, adapter_teacher: tuple[Path, Path]) -> None:
    _name_base(adapter_teacher[0], str(world / "cross"))
    with pytest.raises(InputError, match=r"the adapter does not fit its base model: .*size mismatch.*; fix:"):
        load_model(adapter_teacher[0])


def _quantised(world: Path, folder: Path, *, head: bool) -> None:
    """int8 weights by torchao, which runs on a CPU; in the head too if asked for."""
    quantization = pytest.importorskip("torchao.quantization", reason="a quantised teacher needs torchao here")
    from transformers import TorchAoConfig

    config = TorchAoConfig(quantization.Int8WeightOnlyConfig(), modules_to_not_convert=[] if head else ["lm_head"])
    model = AutoModelForCausalLM.from_pretrained(world / "teacher", quantization_config=config, dtype=torch.float32)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(world / "teacher").save_pretrained(folder)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_quantised_teacher_keeps_its_weights_and_teaches(world: Path, tmp_path: Path, dtype: str) -> None:
    _quantised(world, tmp_path / "int8", head=False)
    model = load_model(tmp_path / "int8", dtype)
    layer = model.model.layers[0].mlp.up_proj.weight.data
    assert type(layer).__name__ == "Int8Tensor"
    assert model.get_output_embeddings().weight.dtype == getattr(torch, dtype)
    exact, ours = _logits(load_model(world / "teacher")), _logits(model).float()
    assert 0 < (ours - exact).norm() < 0.05 * exact.norm()
    report = _train(world, tmp_path / "run", tmp_path / "int8", steps=3, dtype=dtype)
    whole = _train(world, tmp_path / "whole", steps=3, dtype=dtype)
    assert report.losses["loss"] == pytest.approx(whole.losses["loss"], rel=0.05)


def test_a_quantised_head_is_refused(world: Path, tmp_path: Path) -> None:
    _quantised(world, tmp_path / "int8", head=True)
    with pytest.raises(InputError, match=r"its output head lm_head is quantised; fix: quantise the model without it"):
        load_model(tmp_path / "int8")


def test_a_quantised_model_whose_package_is_missing_or_of_unknown_kind_is_a_one_line_error(
    world: Path, tmp_path: Path
) -> None:
    model = load_model(world / "teacher")
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    for method in ("bitsandbytes", "of-another-world"):
        settings = {"quant_method": method, "load_in_8bit": True}
        path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": settings}))
        with pytest.raises(InputError, match=r"is quantised \(\S+\) and cannot be loaded here: .+; fix:") as caught:
            load_model(tmp_path)
        assert "\n" not in str(caught.value)
