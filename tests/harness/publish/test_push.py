"""`harness push` against an imitated hub and its real client: what is uploaded, who sees it, and each failure in one line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from helpers.hub_server import TOKEN, HubServer

FILES = {
    "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    "chat_template.jinja", "training_report.json", "provenance.json",
}  # fmt: skip
NAME = "tester/mine"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(tmp_path / "served") as server:
        server.point_client_here(monkeypatch, token=TOKEN)
        yield server


def push(student: Path, *options: str, to: str = NAME) -> Result:
    return CliRunner().invoke(main, ["push", str(student), "--to", to, *options])


def refused(student: Path, *options: str, to: str = NAME) -> str:
    result = push(student, *options, to=to)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "; fix: " in line
    return line


def test_a_student_goes_to_a_private_repository_without_what_belongs_to_this_machine(
    hub: HubServer, student: Path, world: Path
) -> None:
    done = push(student)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"{hub.url}/{NAME}"
    repository, files = hub.model(NAME), hub.files(NAME)
    assert repository.private
    assert files.keys() - {".gitattributes"} == FILES
    assert files["model.safetensors"] == (student / "model.safetensors").read_bytes()
    assert len(repository.commits) == 2  # the hub's own, and one with everything
    for name, content in files.items():
        told = content.decode(errors="replace")
        assert not [place for place in (world, student.parent, Path.home()) if str(place) in told], name
        assert TOKEN not in told, name
    assert not {"local_files_only", "is_local"} & json.loads(files["tokenizer_config.json"]).keys()
    assert f"# {NAME.rpartition('/')[2]}" in files["README.md"].decode()


def test_an_adapter_names_its_base_and_no_folder(hub: HubServer, adapted_student: Path, world: Path) -> None:
    assert push(adapted_student).exit_code == 0
    files = hub.files(NAME)
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} <= files.keys()
    assert "adapter/README.md" not in files
    assert json.loads(files["adapter/adapter_config.json"])["base_model_name_or_path"] == "cross"
    assert str(world) not in "".join(files[name].decode() for name in files if name.endswith((".json", ".md")))


def test_a_dry_run_prints_card_and_files_and_asks_the_hub_nothing(hub: HubServer, student: Path) -> None:
    asked = push(student, "--dry-run", "--public")
    assert asked.exit_code == 0
    assert asked.stdout.startswith("---\n")
    assert "## Licences" in asked.stdout
    assert all(name in asked.stdout for name in FILES)
    assert "Not uploaded: 9 files" in asked.stdout
    assert "public to tester/mine" in asked.stdout
    assert hub.requests == []


def test_everybody_sees_it_only_where_that_was_said(hub: HubServer, student: Path) -> None:
    assert push(student, "--public").exit_code == 0
    assert not hub.model(NAME).private
    line = refused(student, "--overwrite")
    assert line.startswith(f"error: --to {NAME}: exists and is public, so everybody would see it; fix: --public")
    assert push(student, "--overwrite", "--public").exit_code == 0


def test_what_is_there_is_replaced_only_where_that_was_said(hub: HubServer, student: Path, tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.mkdir()
    (before / "model-00001-of-00002.safetensors").write_bytes(b"old")
    (before / "notes.md").write_text("kept")
    hub.add_model(NAME, before)
    hub.model(NAME).private = True
    hub.model(NAME).readers.add(TOKEN)
    assert refused(student).startswith(f"error: --to {NAME}: exists and holds 2 files; fix: --overwrite")
    assert push(student, "--overwrite").exit_code == 0
    files = hub.files(NAME)
    assert "model-00001-of-00002.safetensors" not in files  # it would be loaded beside the new weights
    assert files["notes.md"] == b"kept"
    assert files["model.safetensors"] == (student / "model.safetensors").read_bytes()


def test_a_push_that_was_cut_off_is_simply_tried_again(hub: HubServer, student: Path) -> None:
    from huggingface_hub import HfApi

    HfApi().create_repo(NAME, private=True)  # as far as it came
    assert push(student).exit_code == 0
    assert hub.files(NAME).keys() >= FILES


def test_an_own_card_is_uploaded_as_it_is(hub: HubServer, student: Path, tmp_path: Path) -> None:
    folder = tmp_path / "edited"
    shutil.copytree(student, folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    assert push(folder).exit_code == 0
    assert hub.files(NAME)["README.md"] == b"---\nlicense: mit\n---\n# Mine\n"
    (folder / "README.md").write_text("---\nlicense: [\n---\n")
    assert "the hub refuses it (" in refused(folder, to="tester/other")


def test_secrets_checkpoints_and_logs_beside_the_model_stay_here(hub: HubServer, student: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(student, folder)
    for name in (".env", "token", "optimizer.pt", "trainer_state.json", "log.txt", "checkpoint-1/model.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("hf_secret")
    assert (folder / "training_log.jsonl").is_file()
    assert (folder / "projectors" / "projectors.safetensors").is_file()
    assert push(folder).exit_code == 0
    assert hub.files(NAME).keys() - {".gitattributes"} == FILES


def test_not_logged_in_unknown_token_and_no_permission(
    hub: HubServer, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.closed.add("other-org")
    assert "no permission to write there" in refused(student, to="other-org/mine")
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")
    assert "the hub does not know this token" in refused(student)
    monkeypatch.delenv("HF_TOKEN")
    assert "not logged in to the hub; fix: hf auth login" in refused(student)


def test_no_network_and_offline(hub: HubServer, student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    hub.stop()
    assert "the hub cannot be reached (" in refused(student)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set, so nothing can be pushed" in refused(student)


@pytest.mark.parametrize("name", ["mine", "a/b/c", "org/na me", "../x", "org/..", "-/x"])
def test_what_is_no_name_is_refused_before_anything_is_read(student: Path, name: str) -> None:
    assert "is no name of a model on the hub" in refused(student, f"--to={name}", to=name)


def test_weights_that_are_missing_are_named(hub: HubServer, student: Path, tmp_path: Path) -> None:
    folder = tmp_path / "torn"
    shutil.copytree(student, folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    assert "model-00001-of-00002.safetensors of its weights is missing" in refused(folder)
    (folder / "model.safetensors").unlink()
    assert "has no weights (model.safetensors)" in refused(folder)
    assert hub.requests == []


@pytest.mark.slow
def test_from_train_and_evaluate_to_the_hub(
    hub: HubServer, world: Path, tmp_path: Path, harness: Callable[..., CompletedProcess[str]]
) -> None:
    models = ["--teacher", world / "teacher", "--student", world / "cross", "--data", world / "train.jsonl"]
    trained = harness("train", *models, "--method", "uld", "--steps", "2", "--output", "out", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    answering = ["--engine", "transformers", "--limit", "2", "--max-new-tokens", "4", "--output-dir", "runs/student"]
    evaluated = harness("evaluate", "--model", "out/train/model", "--task", "small_math", *answering, cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    pushed = harness("push", "out", "--run", "runs/student", "--to", NAME, cwd=tmp_path)
    assert pushed.returncode == 0, pushed.stderr
    files = hub.files(NAME)
    card = files["README.md"].decode()
    assert "distilled from teacher on data by universal logit distillation (uld)" in card
    assert re.search(r"^\| small\\_math .*\| numeric \| \d", card, re.M)
    assert json.loads(files["provenance.json"])["examples"] == 20
    assert not [name for name, content in files.items() if str(world).encode() in content]
