"""Identities: equal for equal settings, different for different ones, and the difference has a name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from dskd.errors import InputError
from harness.runs.identity import FileHashes, Identity, differences


def test_order_of_keys_and_way_of_writing_a_number_do_not_matter() -> None:
    assert Identity.of({"a": 1.0, "b": [2]}).hash == Identity.of({"b": [2.0], "a": 1}).hash
    assert Identity.of({"a": 1}).hash != Identity.of({"a": 1.5}).hash
    assert Identity.of({"a": True}).hash != Identity.of({"a": 1}).hash


def test_the_hash_is_the_sha256_of_the_canonical_json() -> None:
    expected = hashlib.sha256('{"a":[1,"é"]}'.encode()).hexdigest()
    assert Identity.of({"a": [1, "é"]}).hash == expected


def test_nan_has_no_identity() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Identity.of({"a": float("nan")})


def test_a_difference_is_named_however_deep() -> None:
    old = {"teacher": {"training": [{"steps": 100, "data": "x"}]}, "seed": 1}
    new = {"teacher": {"training": [{"steps": 200, "data": "x"}, {"steps": 3}]}, "seed": 1}
    assert differences(old, new) == [
        "teacher.training.0.steps: 100 -> 200",
        'teacher.training.1: absent -> {"steps": 3}',
    ]
    assert differences(old, old) == []


def model_folder(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_a_model_is_its_content_and_not_its_place(tmp_path: Path) -> None:
    hashes = FileHashes()
    first, copy = model_folder(tmp_path / "a"), model_folder(tmp_path / "b")
    other = model_folder(tmp_path / "c", b"other weights")
    assert hashes.model_folder(first) == hashes.model_folder(copy) != hashes.model_folder(other)
    assert hashes.tokenizer_folder(first) == hashes.tokenizer_folder(other)
    before = hashes.model_folder(first)
    (first / "README.md").write_text("words")
    (first / "projectors").mkdir()
    (first / "projectors" / "projectors.safetensors").write_bytes(b"left by a method")
    assert hashes.model_folder(first) == before
    (first / "generation_config.json").write_text("{}")
    assert hashes.model_folder(first) != before


def test_a_file_is_read_once_while_it_stays_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    hashes = FileHashes()
    first = hashes.file(path)
    opened: list[Path] = []
    real_open = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *args: (opened.append(self), real_open(self, *args))[1])
    assert hashes.file(path) == first
    assert opened == []
    monkeypatch.undo()
    path.write_bytes(b"three")
    assert hashes.file(path) != first


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    (folder / "more.safetensors").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"more\.safetensors: cannot be read \(No such file or directory\)"):
        FileHashes().model_folder(folder)
    (folder / "more.safetensors").unlink()
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    with pytest.raises(InputError, match=r"config\.json: cannot be read \(Is a directory\)"):
        FileHashes().model_folder(folder)


@pytest.mark.parametrize(
    ("missing", "message"), [("config.json", "has no config.json"), ("model.safetensors", "has no weights")]
)
def test_a_folder_that_is_no_model(tmp_path: Path, missing: str, message: str) -> None:
    folder = model_folder(tmp_path / "model")
    (folder / missing).unlink()
    with pytest.raises(InputError, match=message):
        FileHashes().model_folder(folder)


def test_an_adapter_is_itself_and_the_model_that_it_stands_on(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder in (base, adapter):
        folder.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"weights")
    (adapter / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{base}"}}')
    (adapter / "adapter_model.safetensors").write_bytes(b"adapter")
    before = FileHashes().model_folder(adapter)
    assert {"adapter_model.safetensors", "base/model.safetensors"} <= before.keys()
    (base / "model.safetensors").write_bytes(b"other weights")
    changed = FileHashes().model_folder(adapter)
    assert {name for name in before if before[name] != changed[name]} == {"base/model.safetensors"}
