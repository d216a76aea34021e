"""Gold answers in the form that a chat model gives them score 100 too, on every item of every task whose data is here.

As completions, up to a stop, they are scored in test_tasks.py; helpers/task_facts.py declares the exceptions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import tasks
from harness.metrics.bbh import reader_of, same_choice
from harness.metrics.choices import find_choice
from helpers import code_forms
from helpers.answer_forms import DECIMALS_ONLY, NUMBER_FORMS
from helpers.choice_forms import forms as choice_forms
from helpers.expression_forms import FORMS
from helpers.task_facts import MAY_BE_WRONG, NOT_ALL_RIGHT, REAL, SIZES, UNPINNED

# The whole function, as chat models are asked to answer; mbpp's solutions are whole anyway.
CODE = {
    "humaneval": "{prompt}{gold}",
    "humaneval_plus": "{prompt}{gold}",
    "small_code": "{prompt}{gold}",
    "mbpp": "{gold}",
    "mbpp_plus": "{gold}",
}
NUMBERS = (
    *("gsm8k", "gsm8k_5shot", "gsm8k_cot_8shot", "small_math"),
    *("gsm_hard", "svamp", "asdiv", "aime2024", "aime2025"),
)


@pytest.fixture(params=SIZES)
def task(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Each task as models with a template are scored on it."""
    if request.param in REAL:
        monkeypatch.setenv("HARNESS_DATA", str(request.getfixturevalue("real_data")))
    return tasks.load(request.param).as_chat()


def in_chat(task: Any, doc: dict[str, str]) -> str:
    """The gold answer as a chat model puts it: between words, or alone where every word counts."""
    gold = task.reference(doc)
    if task.name in NUMBERS:
        return f"Let us go step by step.\n\n{gold.strip()}\n\nI hope this helps!"
    if task.name == "ifeval":
        return gold  # a line before it may be an instruction's, or not
    return f"\n{gold}\n\n"


def assert_all_right(task: Any, docs: list[dict[str, str]]) -> None:
    scores = task.score_many(docs, [in_chat(task, doc) for doc in docs], allow_code_execution=True)
    for metric in task.metrics:
        wrong = {doc["id"] for doc, score in zip(docs, scores, strict=True) if score.scores[metric.name] != 100.0}
        declared = NOT_ALL_RIGHT.get((task.name, metric.name), set())
        assert wrong - MAY_BE_WRONG.get((task.name, metric.name), set()) == declared & {doc["id"] for doc in docs}


def test_gold_answers_of_a_chat_model_score_100(task: Any) -> None:
    assert task.stop == ()
    docs = task.docs()
    if task.runs_code:  # many more are run below
        few = docs[1:2] if task.name.endswith("_plus") else docs[1 :: len(docs) // 3]
        assert_programs_right_in_every_form(task, few)
        return
    # All expressions are compared below; ifeval's answers, as they are here, are in test_tasks.py.
    assert_all_right(task, docs[:: len(docs) // 8] if task.name in ("math500", "ifeval") else docs)


def assert_programs_right_in_every_form(task: Any, docs: list[dict[str, str]]) -> None:
    """Code: of the forms that are read as the same program, one is run."""
    answers: dict[tuple[str, str], tuple[dict[str, str], str, str]] = {}
    for doc in docs:
        code = CODE[task.name].format(prompt=task.prompt(doc), gold=task.reference(doc))
        for name, form in code_forms.FORMS.items():
            answer = form(code, task.form.functions(doc)[-1])
            answers.setdefault((doc["id"], task.form.read(doc, answer, ())[1].source), (doc, answer, name))
    chosen = list(answers.values())
    scores = task.score_many(
        [doc for doc, _, _ in chosen], [answer for _, answer, _ in chosen], allow_code_execution=True
    )
    headline = task.metrics[0].name
    exceptions = NOT_ALL_RIGHT.get((task.name, headline), set()) | MAY_BE_WRONG.get((task.name, headline), set())
    wrong = [
        (doc["id"], name) for (doc, _, name), one in zip(chosen, scores, strict=True) if one.scores[headline] != 100.0
    ]
    assert [one for one in wrong if one[0] not in exceptions] == []


def assert_right_in_every_form(name: str, docs: list[dict[str, Any]]) -> None:
    """Reference numbers of a task, in each form of helpers/answer_forms.py, score 100 by our rule."""
    task = tasks.load(name).as_chat()
    headline = task.metrics[0].name
    for form, answer in NUMBER_FORMS.items():
        numbers = [str(doc["answer"]).rpartition("####")[2].strip().replace(",", "") for doc in docs]
        asked = [
            (doc, answer(n)) for doc, n in zip(docs, numbers, strict=True) if form not in DECIMALS_ONLY or "/" not in n
        ]
        scores = task.score_many(*map(list, zip(*asked, strict=True)))
        wrong = [doc["id"] for (doc, _), score in zip(asked, scores, strict=True) if score.scores[headline] != 100.0]
        assert wrong == [], form


@pytest.mark.parametrize("name", NUMBERS)
def test_reference_numbers_score_100_in_every_form(name: str, real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    docs = tasks.load(name).docs()
    assert_right_in_every_form(name, docs[:: len(docs) // 10])  # all of them below


@pytest.mark.slow
@pytest.mark.parametrize("name", NUMBERS)
def test_all_reference_numbers_score_100_in_every_form(
    name: str, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    assert_right_in_every_form(name, tasks.load(name).docs())


@pytest.mark.parametrize(
    "every", [pytest.param(1, marks=[pytest.mark.slow]), 97], ids=["all questions", "some questions"]
)
def test_choices_are_read_in_every_form_and_other_choices_are_wrong(
    every: int, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    task = tasks.load("bbh").as_chat()  # bbh_zeroshot reads as it does
    stated = [(doc, *form) for doc in task.docs()[::every] for form in choice_forms(doc)]
    read = [
        (form, find_choice(reader_of(doc), right), find_choice(reader_of(doc), wrong), doc)
        for doc, form, right, wrong in stated
    ]
    assert [(form, doc["id"]) for form, right, _, doc in read if not same_choice(right, doc["target"])] == []
    assert [(form, doc["id"]) for form, _, wrong, doc in read if same_choice(wrong, doc["target"])] == []
    assert len({form for form, *_ in read}) > 100


@pytest.mark.slow
@pytest.mark.parametrize("name", CODE)
def test_gold_programs_of_a_chat_model_all_pass(name: str, real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    task = tasks.load(name).as_chat()
    # Each program takes a hundred inputs or a thousand; the forms are read as those of humaneval and mbpp are.
    assert_programs_right_in_every_form(task, task.docs()[:: 20 if name.endswith("_plus") else 1])


def assert_expressions_right(documents_of_a_form: int) -> None:
    """Score gold expressions of math500 in every form: so many documents in each, all in all of them."""
    task = tasks.load("math500").as_chat()
    docs = task.docs()
    step = max(1, len(docs) // documents_of_a_form)
    cases = [(doc, form) for number, form in enumerate(FORMS) for doc in docs[number % step :: step]]
    scores = task.score_many(
        [doc for doc, _ in cases], [FORMS[form].replace("@", doc["answer"]) for doc, form in cases]
    )
    wrong = [
        (doc["id"], form)
        for (doc, form), score in zip(cases, scores, strict=True)
        if score.scores["equivalent"] != 100.0
    ]
    assert len(cases) >= documents_of_a_form * len(FORMS)
    assert wrong == []


def test_gold_expressions_in_every_form_score_100(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    assert_expressions_right(5)


@pytest.mark.slow
def test_all_gold_expressions_in_every_form_score_100(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    assert_expressions_right(500)


def test_every_task_is_among_these() -> None:
    assert {*SIZES, *UNPINNED} == set(tasks.names())
    assert set(CODE) == {name for name in tasks.names() if tasks.load(name).runs_code}
