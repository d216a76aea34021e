"""`dskd.distill`: folders, objects and rows give one and the same student, and what cannot be used is refused in a line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import dskd
from dskd import InputError
from dskd.data.preparation import prepare_dataset
from dskd.from_python.models import as_folder
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.tokenization.prompt_templates import template_of
from dskd.training.provenance import License, read_provenance
from helpers.hub_server import HubServer
from helpers.training_runs import assert_same_weights

MODELS = {"teacher": "teacher", "student": "cross"}  # on the hub, of the folders
OPTIONS: dict[str, Any] = {"steps": 3, "batch_size": 4, "learning_rate": 1e-2, "max_length": 64, "seed": 3}


def rows(world: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (world / "train.jsonl").read_text().splitlines()]


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def by_hand(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The student that `prepare_dataset` and `train` make."""
    folder = tmp_path_factory.mktemp("by-hand")
    models = {"student": world / "cross", "teacher": world / "teacher"}
    prepare_dataset(world / "train.jsonl", folder / "data", max_length=64, **models)
    options = dskd.TrainingOptions(steps=3, batch_size=4, learning_rate=1e-2, max_length=64)
    dskd.train(data=folder / "data", **models, method="dskd-v2-eta", options=options, seed=3, output=folder / "run")
    return state(load_model(folder / "run" / "model"))


def test_folders_give_the_student_that_prepare_and_train_give(
    world: Path, tmp_path: Path, by_hand: dict[str, torch.Tensor]
) -> None:
    output = tmp_path / "out"
    models = {"teacher": str(world / "teacher"), "student": world / "cross"}
    student, report = dskd.distill(
        **models, dataset=world / "train.jsonl", method="dskd-v2-eta", output=output, progress=False, **OPTIONS
    )
    assert_same_weights(state(student.model), by_hand, rtol=0, atol=0)
    assert student.folder == output / "model"
    assert not student.model.training
    assert (report.training.steps, report.data.kept) == (3, len(rows(world)))
    assert not (output / ".work").exists()
    made = read_provenance(output / "model")
    assert made is not None
    assert (made.student.name, made.data.name, made.method, made.examples) == (
        "cross",
        "train.jsonl",
        "dskd-v2-eta",
        20,
    )
    assert str(world) not in made.model_dump_json()


def test_objects_and_rows_give_it_too_and_leave_nothing_behind(
    world: Path, tmp_path: Path, by_hand: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    student = load_model(world / "cross"), load_tokenizer(world / "cross")
    before = state(student[0])
    for data in (rows(world), datasets.Dataset.from_list(rows(world)).with_format("torch"), iter(rows(world))):
        teacher = dskd.Student(load_model(world / "teacher"), load_tokenizer(world / "teacher"))
        trained, _ = dskd.distill(
            teacher=teacher, student=student, dataset=data, method="dskd-v2-eta", progress=False, **OPTIONS
        )
        assert_same_weights(state(trained.model), by_hand, rtol=0, atol=0)
        assert trained.folder is None
        assert list(tmp_path.iterdir()) == []
    assert_same_weights(state(student[0]), before, rtol=0, atol=0)


def test_a_model_whose_generation_settings_transformers_does_not_save_is_taken(world: Path) -> None:
    model = load_model(world / "same")
    model.generation_config.temperature = 0.5  # without do_sample, as chat models of the hub have it
    given = model, load_tokenizer(world / "same")
    trained, _ = dskd.distill(student=given, dataset=rows(world), method="sft", progress=False, **OPTIONS)
    assert trained.model.generation_config.temperature == 0.5
    assert model.generation_config.do_sample is None


def test_an_adapter_is_merged_in_a_copy(world: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=2, task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = get_peft_model(load_model(world / "cross"), config).eval()
    before, ids = state(adapted), torch.arange(3, 12)[None]
    folder, _ = as_folder((adapted, load_tokenizer(world / "cross")), "teacher", tmp_path, None)
    merged = load_model(folder)(ids).logits
    torch.testing.assert_close(merged, adapted(ids).logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(merged, load_model(world / "cross")(ids).logits, atol=1e-2)
    assert_same_weights(state(adapted), before, rtol=0, atol=0)


def test_the_same_call_again_returns_the_report_and_another_is_refused(world: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    asked: dict[str, Any] = {
        "student": world / "same",
        "dataset": rows(world),
        "method": "sft",
        "output": tmp_path / "o",
    }
    first = dskd.distill(**asked, **OPTIONS, progress=lambda event: steps.append(event["step"]))
    assert sorted(set(steps)) == [1, 2, 3]
    again = dskd.distill(**asked, **OPTIONS, progress=lambda event: steps.append(99))
    assert again.report == first.report
    assert 99 not in steps
    with pytest.raises(InputError, match="holds a training with another options; fix: give another folder"):
        dskd.distill(**asked, **{**OPTIONS, "steps": 4}, progress=False)
    assert (tmp_path / "o" / "model" / "model.safetensors").is_file()


def test_a_template_is_given_to_both_or_to_each(world: Path, tmp_path: Path) -> None:
    data = [{"instruction": "Say it", "output": "it is"}] * 4
    before = {path.name: path.read_bytes() for path in (world / "cross").iterdir() if path.is_file()}
    asked: dict[str, Any] = {"teacher": world / "teacher", "student": world / "cross", "dataset": data}
    asked |= OPTIONS | {"max_length": 512}
    trained, _ = dskd.distill(**asked, method="uld", template="alpaca", progress=False)
    found = template_of(trained.tokenizer)
    assert found is not None
    assert found.kind == "alpaca"
    assert before == {path.name: path.read_bytes() for path in (world / "cross").iterdir() if path.is_file()}
    with pytest.raises(InputError, match=r"has a prompt template and .* has none"):
        dskd.distill(**asked, method="uld", template={"teacher": "alpaca"}, progress=False)
    with pytest.raises(InputError, match=r"template: 'alpacca': .*; fix: chat, alpaca, or None"):
        dskd.distill(**asked, method="uld", template="alpacca")


def test_columns_and_options_of_method_and_training_are_taken_by_name(world: Path) -> None:
    data = [{"question": line["prompt"], "answer": line["output"]} for line in rows(world)]
    trained, report = dskd.distill(
        teacher=world / "teacher",
        student=world / "same",
        dataset=data,
        data_options={"prompt": "{question}", "output": "{answer}"},
        method="kd",
        kd_rate=0.9,
        method_options={"temperature": 1.0},
        lora={"rank": 2},
        limit=8,
        epochs=1,
        batch_size=4,
        progress=False,
    )
    assert (report.data.examples, report.training.steps) == (8, 2)
    assert not hasattr(trained.model, "peft_config")


def test_text_gives_the_student_its_share_of_rollouts(world: Path) -> None:
    asked: dict[str, Any] = {"teacher": world / "teacher", "student": world / "cross", "dataset": rows(world)}
    asked |= {"method": "uld", "progress": False, **OPTIONS}
    by_share, first = dskd.distill(**asked, rollouts={"share": 0.5, "max_new_tokens": 4})
    by_text, again = dskd.distill(**asked, rollouts={"max_new_tokens": 4}, text={"data": 0.5, "student": 0.5})
    assert_same_weights(state(by_text.model), state(by_share.model), rtol=0, atol=0)
    assert first.training.rollouts is not None
    assert again.training.rollouts is not None
    assert again.training.rollouts.samples == first.training.rollouts.samples > 0
    as_data, report = dskd.distill(**asked, text="data")
    assert report.training.rollouts is None
    assert any((state(as_data.model)[name] != weight).any() for name, weight in state(by_text.model).items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "no-such"}, "'no-such' is not a method"),
        ({"teacher": None}, "kd needs a teacher"),
        ({"kd_rat": 0.5}, "kd_rat: is no option of kd or of training; did you mean kd_rate"),
        ({"kd_rate": 7}, "methods.kd.kd_rate: Input should be less than or equal to 1"),
        ({"batch_size": 0}, "batch_size: Input should be greater than 0"),
        ({"method": "seqkd"}, "seqkd learns from responses that the teacher writes first; fix: harness train"),
        ({"method": "minillm"}, "minillm learns from on-policy text alone"),
        ({"text": "me"}, "text: no text 'me'; fix: write one of data, teacher, student"),
        ({"text": "teacher"}, "text: the teacher writes before the training; fix: harness train --text teacher"),
        ({"method": "sft", "text": "student"}, "text: sft cannot learn from the student's text; fix"),
        (
            {"text": "student", "rollouts": {"share": 0.5}},
            "rollouts.share: is 0.5, but `text` gives the student 1; fix",
        ),
        ({"student": "models/of/mine"}, "student: models/of/mine: no such model folder"),
        ({"student": "org/no-such-model"}, "student: org/no-such-model@main: is not in the hub's cache"),
        ({"student": torch.nn.Linear(1, 1)}, "student: is of type Linear, which is no model"),
        ({"student": (torch.nn.Linear(1, 1), None)}, "student: is a tuple of Linear, NoneType, which is no model"),
        ({"dataset": {"train": [], "test": []}}, "is one dictionary .train, test., not rows; fix: give one split"),
        ({"dataset": [["prompt", "output"]]}, "row 0 is list, no dictionary"),
        ({"dataset": [{"prompt": "a", "output": {1, 2}}]}, "row 0: set has no form in JSON"),
        ({"dataset": [{"prompt": "a", "output": "\ud800"}]}, "row 0: half of a surrogate pair is no text"),
        ({"dataset": [{"prompt": "a", "answer": "b"}]}, "^dataset:1: .*prompt, answer"),
        ({"dataset": 7}, "dataset: is of type int, which is no rows"),
        ({"dataset": "none.jsonl"}, "none.jsonl: no such file"),
        ({"data_options": {"prompt": "none", "output": "{o}"}}, "data_options.prompt: names no column"),
        ({"data_options": {"prompts": "{o}"}}, "data_options.prompts: Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_line(world: Path, change: dict[str, Any], message: str) -> None:
    models = {"teacher": world / "teacher", "student": world / "same"}
    asked = {**models, "dataset": rows(world), "method": "kd", "progress": False, **OPTIONS, **change}
    with pytest.raises(InputError, match=message) as refused:
        dskd.distill(**asked)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_names_on_the_hub_are_models_and_data_too(world: Path, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    shutil.copy(world / "train.jsonl", tmp_path / "rows" / "train.jsonl")
    (tmp_path / "rows" / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    output = tmp_path / "out"
    code = (
        "import dskd\nstudent, report = dskd.distill(teacher='org/teacher', student='org/student', method='uld', "
        f"dataset='org/rows:train', output={str(output)!r}, steps=1, batch_size=2)\nprint(report.training.steps)"
    )
    with HubServer(tmp_path / "served") as hub:
        commits = [hub.add_model(f"org/{name}", world / folder) for name, folder in MODELS.items()]
        commits.append(hub.add_dataset("org/rows", tmp_path / "rows"))
        done = subprocess.run([sys.executable, "-c", code], env=os.environ | hub.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "1"
    made = read_provenance(output / "model")
    assert made is not None
    assert made.teacher is not None
    assert [made.teacher.hub, made.student.hub, made.data.hub] == ["org/teacher", "org/student", "org/rows"]
    assert [made.teacher.revision, made.student.revision, made.data.revision] == commits
    assert made.data.license == License(id="cc-by-4.0")


def test_it_does_not_run_in_one_of_several_processes(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"runs in one process; fix: use dskd\.train under torchrun"):
        dskd.distill(student=world / "same", dataset=rows(world), method="sft")


def test_progress_is_shown_on_standard_error(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dskd.distill(student=world / "same", dataset=rows(world), method="sft", logging_steps=1, **OPTIONS)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "preparing the data" in shown.err
    assert "training: 3 of 3, loss" in shown.err
