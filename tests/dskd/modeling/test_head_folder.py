"""The head of a model by its name on the hub: what is downloaded is the shard with the head, and a later use of the model has the rest."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dskd import hub
from dskd.errors import InputError
from dskd.modeling.head_alone import read_head
from dskd.modeling.head_folder import head_folder
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.tokenization.vocabulary import Vocabulary
from helpers.hub_server import HubServer
from helpers.llama_folders import write_adapter, write_llama


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama in shards, as large models are."""
    return write_llama(tmp_path_factory.mktemp("models") / "llama", shard="50KB")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(tmp_path / "hub") as served:
        served.point_client_here(monkeypatch)
        yield served


def _weights(folder: Path) -> set[str]:
    return {file.name for file in folder.glob("*.safetensors")}


def _shard(model: Path, name: str) -> str:
    return json.loads((model / "model.safetensors.index.json").read_text())["weight_map"][name]


def _is_head_of(folder: Path, model: Path, *, embedding: bool = False) -> bool:
    words = Vocabulary.from_tokenizer(load_tokenizer(folder))
    head, table = read_head(folder, words, dtype="float32", device="cpu", embedding=embedding)
    whole = load_model(model)
    same = torch.equal(head.weight, whole.lm_head.weight)
    return same and (table is None or torch.equal(table, whole.model.embed_tokens.weight))


def test_the_shard_with_the_head_comes_alone_and_its_size_is_told(
    server: HubServer, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    commit = server.add_model("org/large", model)
    with caplog.at_level(logging.INFO):
        folder = head_folder("org/large")
    shard = _shard(model, "lm_head.weight")
    assert folder == hub.snapshot_folder("org/large", commit)
    assert _weights(folder) == {shard}
    size = (model / shard).stat().st_size
    assert f"downloading 1 file of org/large ({size / 1000:.1f} kB)" in caplog.text
    assert _is_head_of(folder, model)

    both = head_folder(f"org/large@{commit}", embedding=True)
    assert _weights(both) == {shard, _shard(model, "model.embed_tokens.weight")}
    assert _is_head_of(both, model, embedding=True)


def test_the_whole_model_is_had_later(server: HubServer, model: Path) -> None:
    server.add_model("org/large", model)
    head_folder("org/large")
    server.requests.clear()
    folder = hub.model_folder("org/large")
    shard = _shard(model, "lm_head.weight")
    assert not any(shard in path for _, path in server.requests), "what has come stays"
    assert _weights(folder) == _weights(model)
    assert torch.equal(load_model(folder).lm_head.weight, load_model(model).lm_head.weight)


def test_without_a_network_the_head_in_the_cache_is_enough(
    server: HubServer, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    commit = server.add_model("org/large", model)
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(hub.HubUnreachable, match=r"^here: org/large@main: .*HF_HUB_OFFLINE is set; fix: "):
            head_folder("org/large", where="here")
    folder = head_folder("org/large")
    server.stop()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert head_folder("org/large") == folder
    assert _is_head_of(folder, model)
    with pytest.raises(hub.HubUnreachable, match=rf"org/large@{commit}: .*HF_HUB_OFFLINE is set; fix: "):
        head_folder("org/large", embedding=True)


def test_a_model_in_one_file_comes_whole(server: HubServer, tmp_path: Path) -> None:
    model = write_llama(tmp_path / "small")
    server.add_model("org/small", model)
    folder = head_folder("org/small")
    assert _weights(folder) == {"model.safetensors"}
    assert _is_head_of(folder, model)


def test_of_an_adapter_its_base_models_head_comes_too(server: HubServer, model: Path, tmp_path: Path) -> None:
    base = server.add_model("org/large", model)
    server.add_model("org/adapter", write_adapter(tmp_path / "adapter", model, tokenizer=True, named="org/large"))
    folder = head_folder("org/adapter")
    assert _weights(folder) == {"adapter_model.safetensors"}
    assert _weights(hub.snapshot_folder("org/large", base)) == {_shard(model, "lm_head.weight")}
    assert _is_head_of(folder, model)


def test_a_folder_is_itself_and_a_name_that_is_not_there_is_said_with_its_place(
    server: HubServer, model: Path, tmp_path: Path
) -> None:
    assert head_folder(model) == model
    assert head_folder(tmp_path / "nowhere" / "at" / "all") == tmp_path / "nowhere" / "at" / "all"
    with pytest.raises(InputError, match=r"^models\.teacher\.head: org/none@main: no model of this name"):
        head_folder("org/none", where="models.teacher.head")
