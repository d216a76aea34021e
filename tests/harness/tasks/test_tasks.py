"""Every task: its card and settings, its gold answers through `harness score`'s path, and through lm-eval."""

from __future__ import annotations

import importlib.resources
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from dskd.errors import InputError
from dskd.tokenization.prompt_templates import alpaca
from harness import tasks
from harness.evaluation.score import score_predictions
from helpers.task_facts import MAY_BE_WRONG, NOT_ALL_RIGHT, REAL, SIZES, UNPINNED


@pytest.fixture(params=SIZES)
def task(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Each task with its documents; those whose data is nowhere here are skipped."""
    if request.param in REAL:
        monkeypatch.setenv("HARNESS_DATA", str(request.getfixturevalue("real_data")))
    return tasks.load(request.param)


def test_all_tasks_are_found_and_others_are_refused() -> None:
    assert tasks.names() == sorted([*SIZES, *UNPINNED])
    with pytest.raises(InputError, match="task mmlu: no such task; known: "):
        tasks.load("mmlu")


# 500 programs of mbpp take a minute, the inputs of evalplus several.
@pytest.mark.parametrize(
    "task",
    [
        pytest.param(
            name, marks=[pytest.mark.slow] if name in ("mbpp", "humaneval_plus", "mbpp_plus", "small_code") else []
        )
        for name in SIZES
    ],
    indirect=True,
)
def test_gold_answers_of_the_whole_test_set_score_100(task: Any, tmp_path: Path) -> None:
    docs = task.docs()
    assert SIZES[task.name] in (None, len(docs))
    path = tmp_path / "gold.jsonl"
    path.write_text(
        "".join(json.dumps({"id": doc["id"], "output": task.reference(doc)}) + "\n" for doc in reversed(docs))
    )
    samples, summary = score_predictions(task, path, allow_code_execution=True)
    for metric in task.metrics:
        wrong = {sample["id"] for sample in samples if sample["scores"][metric.name] != 100.0}
        slow = MAY_BE_WRONG.get((task.name, metric.name), set())
        assert wrong - slow == NOT_ALL_RIGHT.get((task.name, metric.name), set())
        parts = [sample.get("weights", {}).get(metric.name, 1) for sample in samples]
        lost = sum((100.0 - sample["scores"][metric.name]) * part for sample, part in zip(samples, parts, strict=True))
        assert summary["metrics"][metric.name]["value"] == pytest.approx(100.0 - lost / sum(parts), abs=1e-4)
    assert summary["n"] == {"total": len(docs), "scored": len(docs), "invalid": 0, "truncated": 0, "harness_error": 0}
    assert [sample["id"] for sample in samples] == [doc["id"] for doc in docs]


def test_ids_are_distinct_strings_in_the_data_set_s_order(task: Any) -> None:
    docs = task.docs()
    assert all(isinstance(doc["id"], str) for doc in docs)
    assert len({doc["id"] for doc in docs}) == len(docs)
    assert [doc["id"] for doc in task.docs(limit=3)] == [doc["id"] for doc in docs[:3]]


def test_no_gold_answer_holds_a_stop_and_an_empty_one_is_invalid(task: Any) -> None:
    for doc in task.docs():
        gold = task.reference(doc)
        assert not [stop for stop in task.stop if stop in gold]
    docs = task.docs()[:: 1 + len(task.docs()) // 500]
    scores = task.score_many(docs, [""] * len(docs), allow_code_execution=True)
    assert {score.outcome for score in scores} == {"invalid"}


def test_wrong_answers_score_less(task: Any) -> None:
    docs = task.docs(limit=6)
    others = [task.reference(doc) for doc in [*docs[1:], docs[0]]]
    scores = task.score_many(docs, others, allow_code_execution=True)
    headline = task.metrics[0].name
    assert sum(score.scores[headline] for score in scores) < 50.0 * len(docs)


@pytest.mark.parametrize("name", tasks.names())
def test_every_task_has_a_card_with_its_source_licence_hash_revision_protocol_version_and_changes(name: str) -> None:
    task = tasks.load(name)
    card = (tasks.tasks_folder() / task.name / "README.md").read_text()
    assert card.startswith(f"# {name}\n")
    for line in ("Version", "Source", "Revision", "Licence", "sha256"):
        assert len(re.findall(rf"^{line}: .", card, re.MULTILINE)) == 1, line
    assert f"\nVersion: {task.version}\n" in card
    headings = re.findall(r"^## (.+)$", card, re.MULTILINE)
    assert headings == ["Protocol", "Changes"]
    protocol, changes = card.split("\n## ")[1:]
    for metric in task.metrics:
        assert f"`{metric.name}`" in protocol, metric.name
    assert f"{task.max_new_tokens} new tokens" in protocol
    assert f"\n- {task.version}: " in changes  # the newest version has its line


def test_real_cards_name_the_hashes_that_the_code_checks() -> None:
    for name in (*REAL, "humaneval"):
        task = tasks.load(name)
        digests = [
            word for word in (tasks.tasks_folder() / task.name / "README.md").read_text().split("`") if len(word) == 64
        ]
        assert digests == [data.sha256 for data in task.data_files]


@pytest.mark.parametrize("name", REAL)
def test_the_sizes_of_data_files_are_those_of_the_files(
    name: str, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    for data in tasks.load(name).data_files:
        check = data.check()
        assert (check.status, check.by, check.size) == ("right", "bytes", data.size), data.path


def test_generated_code_runs_only_with_permission() -> None:
    for name in tasks.names():
        task = tasks.load(name)
        assert task.runs_code == (name in ("humaneval", "humaneval_plus", "mbpp", "mbpp_plus", "small_code"))
        if task.runs_code:
            with pytest.raises(InputError, match="--allow-code-execution"):
                task.score({}, "    pass")


def test_humaneval_takes_its_data_from_the_package_where_no_folder_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    assert [row["id"] for row in tasks.load("humaneval").documents()][:2] == ["HumanEval/0", "HumanEval/1"]


def test_gsm8k_is_asked_as_lm_eval_asks_and_stops_where_it_stops() -> None:
    task = tasks.load("gsm8k")
    assert task.prompt({"question": "How many?"}) == "Question: How many?\nAnswer:"
    assert task.reference({"answer": "Two.\n#### 2"}) == " Two.\n#### 2"
    assert task.stop == ("Question:", "</s>", "<|im_end|>")
    assert [metric.name for metric in task.metrics] == ["numeric", "strict", "flexible"]


def test_prompts_of_the_small_tasks_have_the_form_of_the_real_ones(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    template = tasks.load("dolly").prompt(tasks.load("dolly").docs(1)[0])
    small = tasks.load("small_instruct")
    assert any(
        small.prompt(doc).partition("\n\n### Instruction:")[0] == template.partition("\n\n### Instruction:")[0]
        for doc in small.docs()
    )
    math = tasks.load("small_math")
    for doc in math.docs(5):
        assert math.prompt(doc) == tasks.load("gsm8k").prompt(doc)
    code = tasks.load("small_code")
    assert [code.prompt(doc) for doc in code.docs(5)] == [doc["prompt"] for doc in code.docs(5)]


def test_loading_the_tasks_imports_neither_lm_eval_nor_torch() -> None:
    program = (
        "import sys; from harness import tasks; [tasks.load(name) for name in tasks.names()]; "
        "print(sorted({'torch', 'lm_eval', 'datasets', 'rouge_score'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_an_answer_to_several_references_counts_by_the_best(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    task = tasks.load("sinst")
    several = [doc for doc in task.docs() if len(doc["output"]) > 1]
    assert len(several) == 388
    doc = several[0]
    assert [task.score(doc, output).scores["rouge_l"] for output in doc["output"]] == [100.0] * len(doc["output"])


def test_alpaca_s_template_makes_the_rows_own_prompts(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    for name in ("dolly", "selfinst", "vicuna", "sinst"):
        task = tasks.load(name)
        assert [alpaca(task.instruction(doc)) for doc in task.docs()] == [task.prompt(doc) for doc in task.docs()]


def test_mbpp_is_asked_as_lm_eval_asks(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    path = Path(str(importlib.resources.files("lm_eval"))) / "tasks/mbpp/mbpp.yaml"
    theirs = yaml.load(path.read_text().replace("!function ", ""), Loader=yaml.SafeLoader)
    rows = {row["task_id"]: row for row in tasks.load("mbpp").rows()}
    environment = jinja2.Environment(keep_trailing_newline=True)
    ask, answer = (environment.from_string(theirs[key]) for key in ("doc_to_text", "doc_to_target"))
    examples = "".join(
        ask.render(rows[number]) + answer.render(rows[number], is_fewshot=True) + "\n\n" for number in (2, 3, 4)
    )
    task = tasks.load("mbpp")
    assert [task.prompt(doc) for doc in task.docs()] == [
        examples + ask.render(rows[number]) for number in range(11, 511)
    ]
    assert list(task.stop) == theirs["generation_kwargs"]["until"]


def test_an_mbpp_solution_in_a_chat_model_s_block_is_taken_out_and_run(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    task = tasks.load("mbpp").as_chat()
    by_id = {doc["id"]: doc for doc in task.docs()}
    docs = [
        by_id[number] for number in ("11", "126", "367", "367", "367")
    ]  # 126's function is called sum; 367 builds objects
    outputs = [f"Here it is:\n```python\n{task.reference(doc)}\n```" for doc in docs[:3]]
    scores = task.score_many(docs, [*outputs, "class Node: pass", "import sys\nsys.exit(0)"], allow_code_execution=True)
    assert [score.outcome for score in scores] == ["passed", "passed", "passed", "exception", "failed"]


def test_documents_read_from_one_folder_are_not_those_of_another(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    assert tasks.load("gsm8k").docs(1)
    monkeypatch.delenv("HARNESS_DATA")
    with pytest.raises(InputError, match="HARNESS_DATA is not set"):
        tasks.load("gsm8k").docs(1)
