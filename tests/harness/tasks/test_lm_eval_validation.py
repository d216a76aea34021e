"""`lm_eval/NAME:validation`: the validation split of a task of lm-eval, in lm-eval's own prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness import tasks
from harness.steps.leaks import check_no_test_items
from harness.tasks.lm_eval_yaml import validation_split
from helpers.lm_eval_folder import write_task

ROWS = [{"land": f"Land {n}", "city": f"City {n}", "choices": [f"City {n}", "Rome"], "gold": 0} for n in range(9)]
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "The capital of {{land}}?",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{gold}}",
    "num_fewshot": 1,
}
WRITTEN = {
    "output_type": "generate_until",
    "doc_to_text": "The capital of {{land}}?",
    "doc_to_target": "{{city}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 7},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two tasks with a validation split, and one whose test set is the validation split, as HellaSwag's."""
    monkeypatch.setenv("HARNESS_LM_EVAL_TASKS", str(tmp_path))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tasks.load.cache_clear()
    files = {}
    for split, rows in (("train", ROWS[:3]), ("validation", ROWS[3:5]), ("test", ROWS[5:])):
        files[split] = str(tmp_path / f"{split}.jsonl")
        Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    data: dict[str, Any] = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}, "training_split": "train"}
    splits = {"validation_split": "validation", "test_split": "test"}
    write_task(tmp_path, "chosen", {**data, **splits, **CHOICE})
    write_task(tmp_path, "written", {**data, **splits, **WRITTEN})
    write_task(tmp_path, "hidden", {**data, "validation_split": "validation", **CHOICE})
    yield tmp_path
    tasks.load.cache_clear()


@pytest.mark.parametrize("name", ["chosen", "written"])
def test_the_validation_split_is_asked_as_the_test_split_is(folder: Path, name: str) -> None:
    test, validation = tasks.load(f"lm_eval/{name}"), tasks.load(f"lm_eval/{name}:validation")
    assert (test.validation, validation.name) == (
        "the split validation of its data set",
        f"lm_eval/{name}:validation",
    )
    docs = validation.docs()
    assert [doc["id"] for doc in docs] == ["validation/0", "validation/1"]
    assert [doc["fields"]["land"] for doc in docs] == ["Land 3", "Land 4"]
    assert [doc["id"] for doc in test.docs()] == ["0", "1", "2", "3"]
    assert all(validation.prompt(doc).endswith(f"{doc['fields']['land']}?") for doc in docs)
    assert validation.identity()["documents"] != test.identity()["documents"]
    check_no_test_items(f"lm_eval/{name}")
    if name == "written":
        assert validation.score(docs[0], " City 3").scores == {"exact_match,none": 0.0}  # lm-eval strips nothing
        assert validation.score(docs[0], "City 3").scores == {"exact_match,none": 100.0}


def test_a_task_whose_test_set_is_the_validation_split_has_none_left(folder: Path) -> None:
    assert tasks.load("lm_eval/hidden").has_validation is False
    with pytest.raises(
        InputError, match="task lm_eval/hidden:validation: lm_eval/hidden has no validation documents; fix"
    ):
        tasks.load("lm_eval/hidden:validation")


def test_a_split_that_examples_of_prompts_are_drawn_from_is_none_to_choose_by() -> None:
    splits = {"training_split": "train", "validation_split": "validation", "test_split": "test"}
    assert validation_split(splits) == "validation"
    assert validation_split({**splits, "num_fewshot": 3}) == "validation"  # lm-eval draws from train then
    drawn = {"num_fewshot": 3, "fewshot_split": "validation"}
    assert validation_split({**splits, **drawn}) is None
    assert validation_split({**splits, **drawn, "num_fewshot": 0}) == "validation"
    assert validation_split({**splits, "num_fewshot": 3, "fewshot_config": {"split": "validation"}}) is None
    without = {key: value for key, value in splits.items() if key != "training_split"}
    assert validation_split({**without, "num_fewshot": 3}) is None
    assert validation_split({**without, "num_fewshot": 3, "fewshot_config": {"samples": [{}]}}) == "validation"
    assert validation_split({"validation_split": "validation"}) is None
    assert validation_split({"validation_split": "test", "test_split": "test"}) is None
