"""Making models: from random weights, from the first layers of another, and as a copy that begins its texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness.runs.identity import FileHashes
from harness.runs.job_context import JobContext, ProgressChannel
from harness.runs.store import Store
from harness.steps.base import Step
from harness.steps.base_model import ModelCopy, NewModel, model_in_folder
from harness.steps.create_model import add_bos_token, copy_model, new_model
from harness.steps.first_layers import first_layers
from harness.steps.tokenizers import TokenizerFiles

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
GEMMA = {
    "model_type": "gemma3_text",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "sliding_window": 8,
}
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 3, "n_head": 2, "n_positions": 64}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from harness.smallworld.tokenizers import write_byte_level

    folder = tmp_path_factory.mktemp("tokenizer")
    write_byte_level(folder, ["some text to learn from, twelve words or so, and numbers 1234567890"] * 5)
    return folder


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def test_a_new_model_takes_its_vocabulary_from_the_tokenizer_and_its_weights_from_the_seed(
    tokenizer: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoTokenizer

    for name, seed in (("a", 1), ("again", 1), ("b", 2)):
        new_model(LLAMA, tokenizer, seed, tmp_path / name)
    words = AutoTokenizer.from_pretrained(tmp_path / "a")
    model, again, other = (load(tmp_path / name) for name in ("a", "again", "b"))
    assert model.config.vocab_size == len(words)
    assert model.config.eos_token_id == model.generation_config.eos_token_id == words.eos_token_id
    assert model.config.pad_token_id == words.pad_token_id
    assert torch.equal(model.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(model.lm_head.weight, other.lm_head.weight)


def test_a_configuration_that_transformers_does_not_know(tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="config: transformers does not accept it"):
        new_model({"model_type": "lama"}, tokenizer, 1, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(("config", "count"), [(LLAMA, 1), (GEMMA, 2), (GPT2, 2)], ids=["llama", "gemma3", "gpt2"])
def test_first_layers_compute_what_the_whole_model_computes_up_to_there(
    tokenizer: Path, tmp_path: Path, config: dict[str, Any], count: int
) -> None:
    import torch

    new_model(config, tokenizer, 1, tmp_path / "whole")
    first_layers(tmp_path / "whole", count, tmp_path / "part")
    whole, part = load(tmp_path / "whole"), load(tmp_path / "part")
    assert part.config.num_hidden_layers == count
    if getattr(whole.config, "layer_types", None):
        assert part.config.layer_types == whole.config.layer_types[:count]
    ids = torch.arange(12)[None]
    norm = next(m for name, m in whole.base_model.named_children() if name in {"norm", "ln_f"})
    with torch.no_grad():
        states = whole(ids, output_hidden_states=True).hidden_states
        expected = whole.lm_head(norm(states[count]))
        assert torch.allclose(part(ids).logits, expected, atol=1e-5)
    assert (tmp_path / "part/tokenizer.json").is_file()


def test_more_layers_than_there_are(tokenizer: Path, tmp_path: Path) -> None:
    new_model(LLAMA, tokenizer, 1, tmp_path / "whole")
    with pytest.raises(InputError, match="has 2 layers, not 5; ask for fewer"):
        first_layers(tmp_path / "whole", 5, tmp_path / "part")


def test_a_copy_has_the_same_weights_and_a_tokenizer_that_begins_its_texts(tmp_path: Path, tokenizer: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    new_model(LLAMA, tokenizer, 0, tmp_path / "source")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "source")
    loaded.add_special_tokens({"bos_token": "<begin>"})
    loaded.save_pretrained(tmp_path / "source")
    before = loaded("text")["input_ids"]
    copy_model(tmp_path / "source", tmp_path / "copy")
    add_bos_token(tmp_path / "copy")
    assert AutoTokenizer.from_pretrained(tmp_path / "copy")("text")["input_ids"] == [loaded.bos_token_id, *before]
    assert AutoTokenizer.from_pretrained(tmp_path / "source")("text")["input_ids"] == before
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("source", "copy")]
    assert all((value == weights[1][name]).all() for name, value in weights[0].items())


def test_a_tokenizer_without_a_begin_token_cannot_be_made_to_add_one(tmp_path: Path, tokenizer: Path) -> None:
    new_model(LLAMA, tokenizer, 0, tmp_path / "source")
    with pytest.raises(InputError, match="no bos_token"):
        add_bos_token(tmp_path / "source")
    assert not (tmp_path / "copy").exists()


def attempt(step: Step, root: Path) -> None:
    """What a job's process does with a step."""
    (output,) = step.outputs
    Store(root).output(output.folder).begin(step.kind, step.title, output.fingerprint)
    step.run(JobContext(root, step.folder, [output], ProgressChannel()))


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_job_killed_around_its_last_step_is_finished_by_the_next(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    step = NewModel(config=LLAMA, tokenizer=TokenizerFiles(folder=tokenizer, files={}), seed=0, training=[])
    finish = JobContext.finish

    def killed(self: JobContext, *arguments: Any, **more: Any) -> None:
        if moment == "after":
            finish(self, *arguments, **more)
        raise SystemExit("killed here")

    monkeypatch.setattr(JobContext, "finish", killed)
    with pytest.raises(SystemExit):
        attempt(step, tmp_path)
    monkeypatch.setattr(JobContext, "finish", finish)
    attempt(step, tmp_path)
    assert Store(tmp_path).output(step.folder).state()[0] == "done"
    assert (step.path(tmp_path) / "config.json").is_file()
    assert not (tmp_path / step.folder / "stages").exists()


def test_a_copy_that_was_killed_halfway_is_made_again(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    new_model(LLAMA, tokenizer, 0, tmp_path / "source")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "source")
    loaded.add_special_tokens({"bos_token": "<begin>"})
    loaded.save_pretrained(tmp_path / "source")
    step = model_in_folder("m", tmp_path / "source", FileHashes(), "--model", add_bos_token=True)
    assert isinstance(step, ModelCopy)

    def killed(*_: Any) -> None:
        raise SystemExit("killed here")

    with monkeypatch.context() as patched:
        patched.setattr("harness.steps.tokenizers.add_bos_token", killed)
        with pytest.raises(SystemExit):
            attempt(step, tmp_path / "run")
    assert step.path(tmp_path / "run").is_dir()
    attempt(step, tmp_path / "run")
    copied = AutoTokenizer.from_pretrained(step.path(tmp_path / "run"))
    assert copied("text")["input_ids"][0] == copied.bos_token_id
    assert (tmp_path / "source/model.safetensors").samefile(step.path(tmp_path / "run") / "model.safetensors")
