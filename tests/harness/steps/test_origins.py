"""Where models and data came from, as a student's folder says it: hub ids, commits and licences, and no path of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dskd.data.hub_rows import parse_hub_data
from dskd.data.options import DataOptions
from dskd.hub import HubName
from dskd.tokenization.prompt_templates import Template
from dskd.training.options import TrainingOptions
from dskd.training.provenance import License, Origin, origin_of_path
from harness.runs.identity import FileHashes
from harness.steps.base_model import FirstLayers, NewModel, Stage, model_in_folder
from harness.steps.data import FileExamples, PreparedData, WorldExamples
from harness.steps.hub_data import hub_examples
from harness.steps.origins import data_origin, model_origin
from harness.steps.tokenizers import WorldTokenizer
from harness.steps.world import World
from helpers.hub_server import HubServer
from helpers.tiny_models import write_gpt2

CARD = "---\nlicense: other\nlicense_name: llama3\nlicense_link: https://example.org\n---\n# A model\n"
LLAMA = License(id="other", name="llama3", link="https://example.org")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_gpt2(tmp_path_factory.mktemp("models") / "mine", "abc def")
    (folder / "README.md").write_text(CARD)
    return folder


def model(place: Path | HubName, **changes: Any) -> Any:
    return model_in_folder("named", place, FileHashes(), "models.named", **changes)


def test_a_folder_has_a_name_and_the_licence_of_its_card(folder: Path) -> None:
    assert model_origin(model(folder)) == Origin(name="named", license=LLAMA)
    assert model_origin(model(folder, template=Template(kind="alpaca"))) == Origin(name="named", license=LLAMA)


def test_a_name_on_the_hub_has_its_commit(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer(tmp_path / "served") as hub:
        commit = hub.add_model("org/name-1.5", folder)
        (tmp_path / "rows").mkdir()
        (tmp_path / "rows" / "train.jsonl").write_text('{"prompt": "a", "output": "b"}\n')
        data = hub.add_dataset("org/rows", tmp_path / "rows")
        hub.point_client_here(monkeypatch)
        made = model_origin(model(HubName("org/name-1.5")))
        named = parse_hub_data("org/rows:train")
        assert named is not None
        rows = data_origin(hub_examples("mine", named, data, DataOptions()))
    assert (made.hub, made.revision) == ("org/name-1.5", commit)
    assert (rows.name, rows.hub, rows.revision) == ("mine", "org/rows", data)


def test_models_that_are_made_here_say_how(folder: Path) -> None:
    tokenizer = WorldTokenizer(small_world=World(), name="bytelevel")
    data = PreparedData(
        examples=WorldExamples(name="words", small_world=World(), set="student"),
        student_tokenizer=tokenizer,
        max_length=64,
    )
    stages = [Stage(data=data, options=TrainingOptions.model_validate({"steps": 1}))]
    new = NewModel(name="new", seed=1, config={"model_type": "llama"}, tokenizer=tokenizer, training=stages)
    assert model_origin(new).made == "random weights (llama), trained on words"
    cut = FirstLayers(name="cut", seed=0, layers_of=model(folder), layers=1, training=[])
    assert model_origin(cut) == Origin(name="cut", made="the first 1 layers of named", license=LLAMA)


def test_data_of_a_file_and_of_the_small_world(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD)  # of the project that the file lies in, not of the data
    examples = FileExamples(name="mine", file=tmp_path / "train.jsonl", sha256="ab")
    assert data_origin(examples) == Origin(name="mine", sha256="ab")
    world = data_origin(WorldExamples(name="words", small_world=World(), set="student"))
    assert world.made == "generated: the set student of the small world"


def test_a_snapshot_is_known_by_its_place_in_the_cache(tmp_path: Path) -> None:
    commit = "0123456789" * 4
    place = tmp_path / "models--org--a--b" / "snapshots" / commit
    assert origin_of_path(place) == Origin(name="org/a--b", hub="org/a--b", revision=commit)
    file = tmp_path / "datasets--org--rows" / "snapshots" / commit / "data" / "train.jsonl"
    file.parent.mkdir(parents=True)
    (file.parents[1] / "README.md").write_text("---\nlicense: [mit, cc0-1.0]\n---\n")
    assert origin_of_path(file, "mine") == Origin(
        name="mine", hub="org/rows", revision=commit, license=License(id="mit, cc0-1.0")
    )
    assert origin_of_path(tmp_path / "models--org--a" / "snapshots" / "main").hub is None


@pytest.mark.parametrize(
    "card", ["no metadata", "---\nlicense: [\n---\n", "---\n- a\n---\n", "---\ntags: [a]\n---\n", "\xff"]
)
def test_a_card_without_a_licence_gives_none(tmp_path: Path, card: str) -> None:
    (tmp_path / "README.md").write_bytes(card.encode("latin-1"))
    assert origin_of_path(tmp_path).license is None
