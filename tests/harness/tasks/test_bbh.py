"""BIG-Bench Hard: prompts that lm-eval renders and the authors wrote, documents of all tasks, and lm-eval's marks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.api.task import ConfigurableTask
from lm_eval.filters import build_filter_ensemble
from lm_eval.tasks._yaml_loader import load_yaml

from dskd.errors import InputError
from harness import tasks
from harness.evaluation.summary import summarise
from harness.metrics.sample import before_stop
from harness.tasks import bbh
from harness.tasks.bbh_files import FILES
from helpers.choice_forms import forms
from helpers.lm_eval_yaml import TASKS

FOLDERS = {"bbh": "cot_fewshot", "bbh_zeroshot": "cot_zeroshot"}


@pytest.fixture
def bbh_data(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    return real_data / "bbh"


@cache
def settings(folder: str, name: str) -> dict[str, Any]:
    return load_yaml(TASKS / "bbh" / folder / f"{name}.yaml")


def lm_eval_task(folder: str, name: str, rows: Path) -> Any:
    config = dict(settings(folder, name))
    config.update(dataset_path="json", dataset_name=None, dataset_kwargs={"data_files": {"test": str(rows)}})
    return ConfigurableTask(config=config)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_prompts_are_those_that_lm_eval_renders(name: str, bbh_data: Path, tmp_path: Path) -> None:
    import json

    task = tasks.load(name)
    by_task: dict[str, list[dict[str, Any]]] = {}
    for doc in task.docs(4 * len(FILES)):
        by_task.setdefault(doc["task"], []).append(doc)
    for part, docs in by_task.items():
        rows = tmp_path / f"{part}.jsonl"
        rows.write_text("".join(json.dumps({"input": doc["input"], "target": doc["target"]}) + "\n" for doc in docs))
        theirs = lm_eval_task(FOLDERS[name], part, rows)
        theirs.set_fewshot_seed(1234)
        rendered = [theirs.fewshot_context(row, theirs.config.num_fewshot) for row in theirs.test_docs()]
        assert [task.prompt(doc) for doc in docs] == rendered, part


def test_the_examples_are_the_authors_own_but_for_a_line_break(bbh_data: Path) -> None:
    for name, before in bbh.prompts_before("cot_fewshot", tasks.load("bbh").prompts_sha256).items():
        text = (bbh_data / "cot-prompts" / f"{name}.txt").read_text().split("\n", 2)[2]  # the canary and a rule first
        if name == "sports_understanding":
            assert text.count("Let's think step by step. ") == 3
            text = text.replace("Let's think step by step. ", "Let's think step by step.\n")
        assert before.strip() == text.strip(), name


def test_other_prompts_than_the_task_was_made_with_are_refused() -> None:
    with pytest.raises(InputError, match=r"lm-eval's bbh/cot_zeroshot: its prompts have the sha256 \w+, expected 0000"):
        bbh.prompts_before("cot_zeroshot", "0" * 64)


def test_a_limit_takes_some_of_every_task_and_each_has_its_score(bbh_data: Path) -> None:
    task = tasks.load("bbh")
    docs = task.docs(54)
    assert [doc["id"] for doc in docs[:2]] == ["boolean_expressions/0", "causal_judgement/0"]
    assert [doc["id"] for doc in docs[27:28]] == ["boolean_expressions/1"]
    assert {task.category(doc) for doc in docs} == set(FILES)
    outputs = [task.reference(doc) if doc["id"].endswith("/0") else "No idea." for doc in docs]
    scores = task.score_many(docs, outputs)
    samples = [
        {"id": doc["id"], "index": 0, "category": task.category(doc), **score.as_dict()}
        for doc, score in zip(docs, scores, strict=True)
    ]
    summary = summarise(task, samples)
    assert summary["categories"]["snarks"] == {"value": 50.0, "n": 2}
    assert summary["metrics"]["answer_macro"]["value"] == 50.0


def stated(docs: list[dict[str, Any]], seed: int) -> Iterator[tuple[dict[str, Any], str]]:
    """Right and wrong answers in forms that chat models use, and in those of the examples, with letters lost or doubled."""
    draw = random.Random(seed)
    for doc in docs:
        _, right, wrong = draw.choice(list(forms(doc)))
        gold = f"So the answer is {doc['target']}."
        at = draw.randrange(len(gold))
        yield doc, draw.choice([gold, f"First this.\nThe answer is {doc['target']}.\nQuite so."])
        yield doc, right
        yield doc, wrong
        yield doc, gold[:at] + draw.choice(["", gold[at] * 2, " ", "Q", "\n\n"]) + gold[at + 1 :]


def marks_of_lm_eval(folder: str, filter_name: str, cases: list[tuple[dict[str, Any], str]]) -> list[tuple[str, bool]]:
    """What lm-eval's own filter and exact_match say of each case, with the settings of its yaml."""
    found = []
    for doc, output in cases:
        config = settings(folder, doc["task"])
        (entry,) = (each for each in config["filter_list"] if each["name"] == filter_name)
        steps = [dict(step) for step in entry["filter"]]
        ensemble = build_filter_ensemble(filter_name, [(step.pop("function"), step or None) for step in steps])
        instance = Instance("generate_until", {"input": doc["input"]}, (), 0, resps=[output])
        ensemble.apply([instance])
        text = instance.filtered_resps[filter_name]
        (metric,) = config["metric_list"]
        keys = ("ignore_case", "regexes_to_ignore")
        given = {key: metric[key] for key in keys if key in metric}
        found.append((text, bool(exact_match_hf_evaluate([text], [doc["target"]], **given)["exact_match"])))
    return found


def test_get_answer_gives_the_marks_of_lm_eval(bbh_data: Path) -> None:
    task = tasks.load("bbh")
    cases = list(stated(task.docs()[::9], seed=5))
    until = settings("cot_fewshot", "snarks")["generation_kwargs"]["until"]
    theirs = marks_of_lm_eval("cot_fewshot", "get-answer", [(doc, before_stop(output, until)) for doc, output in cases])
    ours = task.score_many([doc for doc, _ in cases], [output for _, output in cases])
    read = [score.extracted["get_answer"] for score in ours]
    assert ["[invalid]" if each is None else each for each in read] == [text for text, _ in theirs]
    assert [score.scores["get_answer"] == 100.0 for score in ours] == [right for _, right in theirs]
    assert 300 < sum(right for _, right in theirs) < len(cases) - 300


@pytest.mark.parametrize(
    "every", [pytest.param(3, marks=[pytest.mark.slow]), 40], ids=["many questions", "some questions"]
)
def test_strict_and_flexible_give_the_marks_of_lm_eval(every: int, bbh_data: Path) -> None:
    task = tasks.load("bbh_zeroshot")
    cases = list(stated(task.docs()[::every], seed=6))
    ours = task.score_many([doc for doc, _ in cases], [output for _, output in cases])
    for metric, filter_name in (("strict", "strict-match"), ("flexible", "flexible-extract")):
        theirs = marks_of_lm_eval("cot_zeroshot", filter_name, cases)
        read = [score.extracted[metric] for score in ours]
        assert ["[invalid]" if each is None else each for each in read] == [text for text, _ in theirs]
        assert [score.scores[metric] == 100.0 for score in ours] == [right for _, right in theirs]
        assert len(cases) / 10 < sum(right for _, right in theirs) < len(cases) * 0.9


def test_the_stops_are_lm_eval_s_but_for_the_bare_q() -> None:
    assert set(tasks.load("bbh_zeroshot").stop) == set(settings("cot_zeroshot", "snarks")["generation_kwargs"]["until"])
    theirs = settings("cot_fewshot", "snarks")["generation_kwargs"]["until"]
    assert {stop + ":" * (stop == "Q") for stop in theirs} == set(tasks.load("bbh").stop)


def test_a_model_with_a_template_is_told_the_form_of_the_answer(bbh_data: Path) -> None:
    zero, few = tasks.load("bbh_zeroshot"), tasks.load("bbh")
    asked = {doc["task"]: "\n".join(zero.instruction(doc)) for doc in zero.docs(len(FILES))}
    assert 'end with "The answer is" and Yes or No.' in asked["navigate"]
    assert 'end with "The answer is" and the letter of the right option in brackets, such as (A).' in asked["snarks"]
    doc = few.docs(1)[0]
    assert few.instruction(doc).instruction == few.prompt(doc)
