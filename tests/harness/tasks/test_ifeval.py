"""IFEval: verdicts are those of lm-eval's own process_results, and nothing is generated where a verdict could not be had."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness import tasks
from harness.metrics import punkt
from harness.metrics.instructions import follows, lm_eval_checkers

ODD = {"1122", "1129"}  # lm-eval draws a random letter for "#" and "!"


@pytest.fixture
def task(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    try:
        punkt.require_punkt()
    except InputError:
        pytest.skip("nltk's punkt_tab is not here")
    return tasks.load("ifeval")


def answers(task: Any, every: int) -> Iterator[tuple[dict[str, Any], str]]:
    """Gold answers, the same with lines lost, words changed or something added, and the gold answers of other prompts."""
    draw = random.Random(3)
    docs = task.docs()[::every]
    golds = [task.reference(doc) for doc in docs]
    for doc, gold in zip(docs, golds, strict=True):
        lines = gold.split("\n")
        yield doc, gold
        yield doc, f"Sure, here it is:\n{gold}\nLet me know, please, if that helps."
        yield doc, "\n".join(line for line in lines if draw.random() < 0.7)
        yield doc, " ".join(draw.choice([word, word, word, word.upper(), f"*{word}*", ""]) for word in gold.split(" "))
        yield doc, draw.choice(golds)


@pytest.mark.parametrize("every", [pytest.param(1, marks=[pytest.mark.slow]), 25], ids=["all prompts", "some prompts"])
def test_verdicts_are_those_of_lm_eval(task: Any, every: int) -> None:
    lm_eval_checkers()  # with the fixed seed of languages, for lm-eval's function too
    from lm_eval.tasks.ifeval.utils import process_results

    seen: set[tuple[bool, bool]] = set()
    for doc, answer in answers(task, every):
        if doc["id"] in ODD:
            continue
        found = follows(doc["instruction_id_list"], doc["kwargs"], doc["prompt"], answer)
        theirs = process_results(doc, [answer])
        assert list(found.strict) == theirs["inst_level_strict_acc"], doc["id"]
        assert list(found.loose) == theirs["inst_level_loose_acc"], doc["id"]
        assert all(found.strict) == theirs["prompt_level_strict_acc"]
        seen.add((all(found.strict), all(found.loose)))
    assert seen == {(True, True), (False, True), (False, False)}


def test_the_two_prompts_whose_characters_lm_eval_does_not_know_are_these(task: Any) -> None:
    odd = {
        doc["id"]
        for doc in task.docs()
        for given in doc["kwargs"]
        if not "a" <= given.get("letter", "a").lower() <= "z"
    }
    assert odd == ODD


def test_the_mean_over_instructions_is_lm_eval_s(task: Any) -> None:
    from lm_eval.tasks.ifeval.utils import agg_inst_level_acc

    docs = [doc for doc in task.docs()[:60] if len(set(doc["instruction_id_list"])) == len(doc["instruction_id_list"])]
    scores = task.score_many(docs, [task.reference(doc) for doc in docs[1:] + docs[:1]])  # of others
    verdicts = [
        [kind in (score.extracted["strict"] or "").split(", ") for kind in doc["instruction_id_list"]]
        for doc, score in zip(docs, scores, strict=True)
    ]
    weights = [score.weights["inst_strict"] for score in scores]
    mean = sum(score.scores["inst_strict"] * weight for score, weight in zip(scores, weights, strict=True)) / sum(
        weights
    )
    assert mean == pytest.approx(100.0 * agg_inst_level_acc(verdicts))
    assert 15 < mean < 85


def test_without_nltk_s_data_there_are_no_documents(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(punkt, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="punkt_tab is not here; fix: "):
        task.documents()


def test_the_libraries_that_verdicts_come_from_are_part_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    task = tasks.load("ifeval")
    before = task.identity()
    assert set(before) == {"checks", "langdetect", "nltk"}
    monkeypatch.setattr("harness.metrics.instructions._CHECKS", ("utils.py",))
    assert task.identity()["checks"] != before["checks"]
