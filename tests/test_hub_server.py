"""The imitated hub of the tests: the real client reads from it and pushes to it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.hub_server import TOKEN, HubServer


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path / "served") as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of all kinds: in git, in large file storage, in a folder."""
    made = tmp_path / "made"
    (made / "extra").mkdir(parents=True)
    (made / "config.json").write_text('{"model_type": "llama"}')
    (made / "extra" / "note.txt").write_text("a note")
    (made / "model.safetensors").write_bytes(os.urandom(200_000))
    return made


def test_a_snapshot_is_what_was_committed_at_the_revision(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import snapshot_download

    first = hub.add_model("org/name", folder)
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    second = hub.add_model("org/name", folder)
    hub.model("org/name").tags["v1"] = first
    hub.point_client_here(monkeypatch)
    for revision, commit, kind in (("main", second, "gpt2"), ("v1", first, "llama"), (first, first, "llama")):
        snapshot = Path(snapshot_download("org/name", revision=revision))
        assert snapshot.name == commit
        assert json.loads((snapshot / "config.json").read_text())["model_type"] == kind
        assert (snapshot / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
        assert (snapshot / "extra" / "note.txt").read_text() == "a note"


def test_a_file_that_is_cut_off_once_is_resumed_by_a_range(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants, hf_hub_download

    hub.add_model("org/name", folder)
    hub.cut_off("org/name", "model.safetensors", 150_000, times=1)
    hub.point_client_here(monkeypatch)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
    path = Path(hf_hub_download("org/name", "model.safetensors"))
    assert path.read_bytes() == (folder / "model.safetensors").read_bytes()
    assert sum("/cdn/" in place for _, place in hub.requests) == 2


def test_gated_private_missing_and_no_such_revision_are_told_apart(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import errors, snapshot_download

    hub.add_model("org/gated", folder, gated=True)
    hub.add_model("org/private", folder)
    hub.model("org/private").private = True
    hub.add_model("org/name", folder)
    hub.point_client_here(monkeypatch)
    cases = [
        ("org/gated", "main", errors.GatedRepoError),
        ("org/private", "main", errors.RepositoryNotFoundError),
        ("org/none", "main", errors.RepositoryNotFoundError),
        ("org/name", "nightly", errors.RevisionNotFoundError),
    ]
    for name, revision, error in cases:
        with pytest.raises(error):
            snapshot_download(name, revision=revision)
    hub.model("org/gated").readers.add("hf_reader")
    assert Path(snapshot_download("org/gated", token="hf_reader"), "config.json").is_file()


def test_data_sets_are_read_by_the_library_datasets(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess
    import sys

    rows = tmp_path / "rows" / "data"
    rows.mkdir(parents=True)
    (rows / "train.jsonl").write_text('{"prompt": "one", "output": "1"}\n{"prompt": "two", "output": "2"}\n')
    (rows / "test.jsonl").write_text('{"prompt": "three", "output": "3"}\n')
    hub.add_dataset("org/rows", rows.parent)
    code = "import datasets; print(datasets.load_dataset('org/rows', split='test')[0]['prompt'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | hub.env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "three"


def test_a_folder_is_pushed_to_a_private_repository(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi, snapshot_download

    hub.point_client_here(monkeypatch, token=TOKEN)
    api = HfApi()
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    assert api.whoami()["name"] == "tester"
    assert api.create_repo("tester/mine", private=True).repo_id == "tester/mine"
    api.create_repo("tester/mine", private=True, exist_ok=True)
    commit = api.upload_folder(repo_id="tester/mine", folder_path=folder, commit_message="a student")
    repository = hub.model("tester/mine")
    assert repository.private
    assert repository.branches["main"] == commit.oid
    assert repository.messages[commit.oid] == "a student"
    expected = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert hub.files("tester/mine") == expected | {".gitattributes": b""}
    assert (Path(snapshot_download("tester/mine")) / "model.safetensors").is_file()
    # Nothing changed: nothing is committed.
    assert api.upload_folder(repo_id="tester/mine", folder_path=folder).oid == commit.oid
    assert len(repository.commits) == 2


def test_nobody_pushes_without_a_token_or_with_a_wrong_card(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi, errors

    hub.point_client_here(monkeypatch)
    with pytest.raises(errors.HfHubHTTPError, match="401"):
        HfApi().create_repo("tester/mine")
    hub.point_client_here(monkeypatch, token=TOKEN)
    HfApi().create_repo("tester/mine")
    assert not hub.model("tester/mine").private
    (folder / "README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(ValueError, match="Invalid metadata in README"):
        HfApi().upload_folder(repo_id="tester/mine", folder_path=folder)
