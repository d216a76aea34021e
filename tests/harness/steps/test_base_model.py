"""Making models: from random weights, and as a copy with another tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from dskd.errors import InputError
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.tokenization.prompt_templates import Template
from harness.runs.identity import FileHashes
from harness.runs.job_context import JobContext, ProgressChannel
from harness.runs.store import Store
from harness.steps import create_model
from harness.steps.base import Step
from harness.steps.base_model import ModelCopy, NewModel, model_in_folder
from harness.steps.create_model import add_bos_token, copy_model, new_model
from harness.steps.tokenizers import TokenizerFiles
from helpers.llama_folders import in_hub_cache, write_adapter

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


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


def test_a_copy_has_the_same_weights_and_a_tokenizer_that_begins_its_texts(tmp_path: Path, tokenizer: Path) -> None:
    from safetensors.torch import load_file

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


def chat_copy(source: Path, root: Path) -> Path:
    """The copy of a model that a job makes for a chat template."""
    step = model_in_folder("m", source, FileHashes(), "--model", Template(kind="chat"))
    attempt(step, root)
    assert Store(root).output(step.folder).holds(step.outputs[0].made)
    return step.path(root)


@pytest.fixture
def chatting(tmp_path: Path, tokenizer: Path) -> Path:
    """A model with a chat template, and another one under a name."""
    new_model(LLAMA, tokenizer, 0, tmp_path / "source")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "source")
    text = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}"
    loaded.chat_template = {"default": text, "short": "{{ messages[0].content }}"}
    loaded.save_pretrained(tmp_path / "source")
    return tmp_path / "source"


def test_a_copy_of_a_folder_of_links_is_a_whole_model(tmp_path: Path, chatting: Path) -> None:
    snapshot = in_hub_cache(chatting, tmp_path / "hub")
    copy = chat_copy(snapshot, tmp_path / "run")
    assert not any(path.is_symlink() for path in copy.rglob("*"))
    assert (copy / "model.safetensors").samefile((snapshot / "model.safetensors").resolve())  # linked, not copied
    assert not (copy / "config.json").samefile((snapshot / "config.json").resolve())
    before, after = load(chatting), load(copy)
    assert all((value == after.state_dict()[name]).all() for name, value in before.state_dict().items())
    assert AutoTokenizer.from_pretrained(copy).chat_template.keys() == {"default", "short"}
    assert FileHashes().model_folder(snapshot) == FileHashes().model_folder(chatting)
    assert FileHashes().tokenizer_folder(snapshot) == FileHashes().tokenizer_folder(chatting)
    assert "additional_chat_templates/short.jinja" in FileHashes().tokenizer_folder(chatting)


def test_a_copy_that_misses_a_file_does_not_count_as_done(
    tmp_path: Path, chatting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = model_in_folder("m", chatting, FileHashes(), "--model", Template(kind="chat"))
    linked = create_model._link

    def cut_off(file: Path, target: Path) -> None:
        target.write_bytes(file.read_bytes()[:-100])

    with monkeypatch.context() as patched:
        patched.setattr(create_model, "_link", cut_off)
        with pytest.raises(InputError, match=r"model\.safetensors: was cut off"):
            attempt(step, tmp_path / "run")
    output = Store(tmp_path / "run").output(step.folder)
    assert not output.holds(step.outputs[0].made)
    assert create_model._link is linked
    attempt(step, tmp_path / "run")
    assert output.holds(step.outputs[0].made)


def test_a_copy_of_dangling_links_from_an_older_version_is_made_again(tmp_path: Path, chatting: Path) -> None:
    copy = chat_copy(chatting, tmp_path / "run")
    step = model_in_folder("m", chatting, FileHashes(), "--model", Template(kind="chat"))
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors").symlink_to("../../blobs/1")
    assert not Store(tmp_path / "run").output(step.folder).holds(step.outputs[0].made)
    assert chat_copy(chatting, tmp_path / "run") == copy
    assert not (copy / "model.safetensors").is_symlink()


def test_a_copy_of_an_adapter_finds_its_base_model_from_wherever_it_lies(tmp_path: Path, chatting: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", chatting, named="../source")
    copy = chat_copy(adapter, tmp_path / "run")
    ours, theirs = load_model(copy).state_dict(), load_model(adapter).state_dict()
    assert all((value == theirs[name]).all() for name, value in ours.items())
    assert not all((value == load(chatting).state_dict()[name]).all() for name, value in ours.items())
    assert AutoTokenizer.from_pretrained(copy).chat_template.keys() == {"default", "short"}
    assert load_tokenizer(copy).init_kwargs["prompt_template"]["kind"] == "chat"
    assert "prompt_template" not in load_tokenizer(chatting).init_kwargs
