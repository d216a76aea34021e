"""GSM8K's few-shot prompts: those of lm-eval's own tasks, rendered by lm-eval itself."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from dskd.errors import InputError
from dskd.tokenization.prompt_templates import alpaca
from harness import tasks
from harness.tasks import gsm8k as gsm8k_tasks
from helpers.lm_eval_yaml import TASKS


@pytest.fixture
def gsm8k_data(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    return real_data / "gsm8k"


@cache
def lm_eval_task(file: str, folder: Path, sampler: str | None = None) -> Any:
    """lm-eval's task of a yaml file of its own, with the data from a folder instead of the hub."""
    config = load_yaml(TASKS / "gsm8k" / file)
    config.pop("tag")
    config.update(
        dataset_path="json",
        dataset_name=None,
        dataset_kwargs={"data_files": {split: str(folder / f"{split}.jsonl") for split in ("train", "test")}},
    )
    if sampler is not None:
        config["fewshot_config"] = {"sampler": sampler}
    return ConfigurableTask(config=config)


def rendered(theirs: Any, count: int) -> list[str]:
    theirs.set_fewshot_seed(1234)
    return [
        theirs.fewshot_context(doc, theirs.config.num_fewshot)
        for _, doc in zip(range(count), theirs.test_docs(), strict=False)
    ]


@pytest.mark.parametrize(
    ("name", "file", "sampler"),
    [("gsm8k_cot_8shot", "gsm8k-cot.yaml", None), ("gsm8k_5shot", "gsm8k.yaml", "first_n")],
)
def test_the_prompts_are_those_that_lm_eval_renders(
    gsm8k_data: Path, name: str, file: str, sampler: str | None
) -> None:
    task, theirs = tasks.load(name), lm_eval_task(file, gsm8k_data, sampler)
    docs = task.docs(50)  # all 1,319 take ten seconds
    assert [task.prompt(doc) for doc in docs] == rendered(theirs, len(docs))
    assert list(task.stop) == theirs.config.generation_kwargs["until"]


def test_the_five_examples_are_the_same_for_every_question_and_have_their_full_answers(gsm8k_data: Path) -> None:
    task = tasks.load("gsm8k_5shot")
    first, last = task.docs()[0], task.docs()[-1]
    examples = task.prompt(first).removesuffix(f"Question: {first['question']}\nAnswer:")
    assert task.prompt(last) == f"{examples}Question: {last['question']}\nAnswer:"
    assert examples.count("\n#### ") == examples.count("Question: ") == 5
    assert examples.count("<<") > 5
    assert first["question"] not in examples


def test_a_model_with_a_template_is_asked_the_whole_prompt_in_one_turn(gsm8k_data: Path) -> None:
    for name in ("gsm8k_5shot", "gsm8k_cot_8shot"):
        task = tasks.load(name)
        doc = task.docs(1)[0]
        assert f"### Instruction:\n{task.prompt(doc)}\n\n### Response:" in alpaca(task.instruction(doc))
        assert task.as_chat().stop == ()


def test_other_examples_than_the_task_was_made_with_are_refused(
    gsm8k_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match=r"rows \[0, 1\] of gsm8k/train.jsonl have the sha256"):
        gsm8k_tasks.training_examples((0, 1), "0" * 64)
    samples = gsm8k_tasks._lm_eval_samples()
    samples[3]["target"] += " "
    monkeypatch.setattr(gsm8k_tasks, "_lm_eval_samples", lambda: samples)
    with pytest.raises(InputError, match=r"gsm8k-cot.yaml: its examples have the sha256 .*; fix: install lm-eval"):
        tasks.load("gsm8k_cot_8shot").documents()


def test_without_the_training_file_the_examples_are_missing(
    gsm8k_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k/test.jsonl").symlink_to(gsm8k_data / "test.jsonl")
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    task = tasks.load("gsm8k_5shot")
    assert not task.data_is_here
    assert tasks.load("gsm8k_cot_8shot").data_is_here
    with pytest.raises(InputError, match=r"train\.jsonl: no such file; fix: set HARNESS_DATA"):
        task.documents()
