"""Which texts of an evaluation are compared, and what their sums come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dskd.distances import Measured
from dskd.modeling.loading import load_tokenizer
from harness import distances, tasks
from harness.distances.summary import MEASURED, ratio
from harness.tasks.loglikelihood_task import LogLikelihoodTask
from helpers.tiny_tokenizers import byte_level

TASK = tasks.load("small_math")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_level().save_pretrained(folder)
    return load_tokenizer(folder)


def sample(number: int, **more: Any) -> dict[str, Any]:
    row = {"output": " 12", "prompt": f"asked {number}", "finish_reason": "stop", "prompt_truncated": False}
    return {"id": TASK.docs(3)[number]["id"], **row, **more}


def by_item(*rows: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["id"], []).append(row)
    return found


def test_own_answers_have_the_prompt_that_was_asked_and_end_where_no_limit_cut_them(tokenizer: Any) -> None:
    rows = by_item(sample(0), sample(0, output=" 1 2", finish_reason="length"), sample(1, prompt_truncated=True))
    found = distances.own_answers(TASK, rows, 3, tokenizer)
    first = TASK.docs(3)[0]
    assert found.ids == [first["id"]] * 2
    assert [text.student_prompt for text in found.texts] == ["asked 0"] * 2
    assert {text.teacher_prompt for text in found.texts} == {TASK.render_prompt(first, tokenizer)}
    assert [(text.response, text.ended) for text in found.texts] == [(" 12", True), (" 1 2", False)]
    assert dict(found.left_out) == {"the prompt was cut": 1}


def test_references_follow_the_prompts_of_each_model(tokenizer: Any) -> None:
    found = distances.reference_answers(TASK, 2, tokenizer, None)
    assert [text.response for text in found.texts] == [TASK.reference(doc) for doc in TASK.docs(2)]
    assert [text.teacher_prompt for text in found.texts] == ["", ""]
    assert all(text.ended for text in found.texts)


def test_a_model_that_reasons_has_no_whole_text(tokenizer: Any) -> None:
    found = distances.own_answers(TASK, by_item(sample(0, reasoning="six and six")), 3, tokenizer)
    assert (found.texts, found.reason) == ([], "the model reasons before its answer, and the whole text is not kept")
    assert distances.nothing(str(found.reason)).values["student_entropy"].reason == found.reason


def test_a_task_of_log_likelihoods_has_no_texts(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    monkeypatch.setattr(LogLikelihoodTask, "__abstractmethods__", frozenset())
    task = LogLikelihoodTask()  # type: ignore[abstract]
    for found in (
        distances.own_answers(task, {}, 3, tokenizer),
        distances.reference_answers(task, 3, tokenizer, tokenizer),
    ):
        assert found.reason == "the task is scored by log-likelihoods: nothing is generated"
    assert distances.of_lengths(distances.lengths(task, {}, 3))["length_ratio"].value is None


def test_lengths_are_a_ratio_of_means_over_items(tokenizer: Any) -> None:
    rows = by_item(sample(0, output="é"), sample(1, output="abcd", finish_reason="length"))
    found = distances.of_lengths(distances.lengths(TASK, rows, 3))
    references = sum(len(TASK.reference(doc).encode()) for doc in TASK.docs(2))
    assert found["length_ratio"].value == pytest.approx(6 / references, abs=1e-6)
    assert (found["length_ratio"].n, found["cut_off_share"].value) == (2, 0.5)


def test_samples_of_one_item_are_one_item_and_a_ratio_weighs_tokens() -> None:
    found = ratio(["a", "a", "b"], [(1.0, 2.0), (3.0, 2.0), (0.0, 4.0)])
    assert (found.value, found.n, found.items) == (0.5, 8, 2)
    assert found.ci95 == (0.0, 1.0)
    alone = ratio(["a"], [(1.0, 2.0)])
    assert (alone.value, alone.ci95) == (0.5, None)
    assert ratio(["a"], [(0.0, 0.0)]).reason == "there is no token or text to take it from"


def test_texts_that_are_left_out_are_counted_by_reason_and_what_is_unknown_is_null() -> None:
    texts = distances.Texts(ids=["a", "b", "c"], texts=[None] * 3)  # type: ignore[list-item]
    texts.left_out["the prompt was cut"] = 2
    item = dict.fromkeys(set(MEASURED) - {"teacher_entropy"}, (4.0, 2.0))
    measured = Measured([item, None, None], {1: "no text", 2: "no text"}, {"teacher_entropy": "not given"}, "top_k")
    found = distances.summarise(texts, measured, "cache", None)
    assert found.left_out == {"the prompt was cut": 2, "no text": 2}
    assert (found.texts, found.form, found.values["student_entropy"].value) == (5, "lower_bound", 2.0)
    assert found.values["teacher_entropy"].reason == "not given"
    alone = distances.summarise(texts, measured, None, "it is the teacher itself")
    assert alone.values["teacher_entropy"].reason == "it is the teacher itself"


def test_records_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    from harness.results.distances import read_distances

    (tmp_path / "a").mkdir()
    (tmp_path / "a/distances.json").write_text('{"cell": 1}')
    records, problems = read_distances(tmp_path)
    assert records == []
    assert problems[0].startswith(f"{tmp_path / 'a/distances.json'}: ")
