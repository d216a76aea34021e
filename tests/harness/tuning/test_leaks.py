"""Nothing that chooses reads a test item: which tasks are asked for, what is compared before a run, and which records are ranked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dskd.errors import InputError
from harness import tasks
from harness.cli import main
from harness.planning import preflight
from harness.planning.plan import Plan, make_plan
from harness.runs.store import RESULT
from harness.steps.base import Step
from harness.steps.evaluation import Evaluate
from harness.steps.leaks import check_no_test_items
from harness.steps.ranking import Ranking, _score
from harness.steps.trial import TunedTrain
from harness.steps.validation import Validate
from helpers.written_runs import write_run

Content = dict[str, Any]
PLANTED = """
from harness.metrics.sample import SampleScore, score_each
from harness.tasks import Metric, Task


class Capitals(Task):
    name, version, max_new_tokens = "capitals", "1", 8
    metrics = (Metric("exact_match"),)
    validation = "countries"

    def documents(self):
        return [{{"id": "a", "question": "The capital of France is", "capital": "Paris"}}]

    def validation_documents(self):
        asked = ["The capital of Peru is", {planted!r}]
        return [{{"id": f"validation/{{n}}", "question": text, "capital": "?"}} for n, text in enumerate(asked)]

    def prompt(self, doc):
        return doc["question"]

    def reference(self, doc):
        return doc["capital"]

    def score_outputs(self, docs, outputs, advance):
        return score_each(lambda doc, output: SampleScore({{"exact_match": 0.0}}, {{}}, "wrong"), docs, outputs, advance)
"""


@pytest.fixture
def planted(tmp_path: Path) -> Callable[[str], str]:
    """The name of a task of one's own, one of whose two validation items asks `text`."""

    def write(text: str) -> str:
        folder = tmp_path / f"task-{len(list(tmp_path.glob('task-*')))}"
        folder.mkdir()
        (folder / "capitals.py").write_text(PLANTED.format(planted=text))
        return f"{folder / 'capitals.py'}:Capitals"

    return write


@pytest.fixture
def tuned(tiny: Content) -> Content:
    """A matrix of one pair whose method is tuned by two trials."""
    tiny["pairs"] = [{"teacher": "teacher", "student": "same", "methods": ["kd"]}]
    tiny["tasks"] = {"small_math": {"limit": 1}}
    return {**tiny, "tuning": {"budget": 2, "limit": 2}}


@pytest.mark.parametrize("text", ["The capital of France is", "  the CAPITAL of\n\tFrance  is "])
def test_a_planted_test_item_is_one_line_and_exit_code_2_before_anything_is_written(
    tuned: Content, write_matrix: Callable[[Any], Path], planted: Callable[[str], str], tmp_path: Path, text: str
) -> None:
    name = planted(text)
    tuned["tasks"][name] = {}
    tuned["tuning"]["tasks"] = [name]
    root = tmp_path / "run"
    result = CliRunner().invoke(main, ["run", "--matrix", str(write_matrix(tuned)), "--output-dir", str(root)])
    assert result.exit_code == 2
    assert result.stderr.strip().splitlines()[-1] == (
        f"error: tuning.tasks: 1 of the 2 validation items of {name} are test items, as validation/1; "
        "fix: correct `validation_documents` of the task, or choose by the validation items of others"
    )
    assert not root.exists()


def test_a_task_whose_validation_items_are_new_is_let_through(
    tuned: Content, write_matrix: Callable[[Any], Path], planted: Callable[[str], str], tmp_path: Path
) -> None:
    tuned["tuning"]["tasks"] = [planted("The capital of Chile is")]
    plan = make_plan(str(write_matrix(tuned)), output_dir=tmp_path / "run")
    preflight.check(plan, allow_code_execution=False)


def test_test_items_of_another_task_of_the_matrix_are_found_too(
    tuned: Content, write_matrix: Callable[[Any], Path], planted: Callable[[str], str], tmp_path: Path
) -> None:
    asked = tasks.load("small_math")
    name = planted(asked.question(asked.docs()[0]).upper())
    tuned["tuning"]["tasks"] = [name]
    plan = make_plan(str(write_matrix(tuned)), output_dir=tmp_path / "run")
    with pytest.raises(
        InputError, match="are test items of small_math, as validation/1; fix: leave small_math out, or"
    ):
        preflight.check(plan, allow_code_execution=False)


def test_validation_items_that_are_trained_on_are_told(
    tuned: Content,
    write_matrix: Callable[[Any], Path],
    planted: Callable[[str], str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [{"prompt": f"The capital of {land} is", "output": "?"} for land in ("Chile", "Spain", "PERU", "Oman")]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for model in ("teacher", "same"):
        tuned["models"][model].pop("training", None)
    for limit, told in ((None, "2 of the 2 items"), (2, "1 of the 2 items"), (1, "")):
        caplog.clear()
        name = planted("The capital of Spain is")
        tuned["tuning"]["tasks"] = [name]
        tuned["data"] = {"student": {"file": str(tmp_path / "train.jsonl"), **({"limit": limit} if limit else {})}}
        plan = make_plan(str(write_matrix(tuned)), output_dir=tmp_path / "run")
        preflight.check(plan, allow_code_execution=False)
        warnings = [record.getMessage() for record in caplog.records if "training set student" in record.getMessage()]
        assert [text[: len(told)] for text in warnings] == ([told] if told else [])


def test_problems_that_two_data_sets_share_under_other_words_are_found(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    check_no_test_items("mbpp", ["mbpp", "humaneval", "gsm8k", "gsm8k:validation"])
    with pytest.raises(InputError, match="39 of the 90 validation items of mbpp are test items of mbpp_plus, as 5"):
        check_no_test_items("mbpp", ["humaneval", "mbpp_plus"])
    with pytest.raises(InputError, match="30 of the 30 validation items of aime2025 are test items of aime2024"):
        check_no_test_items("aime2025", ["aime2024"])
    check_no_test_items("gsm8k", ["gsm8k_5shot", "gsm8k_cot_8shot", "gsm_hard", "svamp", "asdiv"])
    check_no_test_items("dolly", ["selfinst", "vicuna", "sinst"])


def made_for_choosing(plan: Plan) -> list[Step]:
    """All that the students of a chosen setting depend on."""
    steps = [job.step for job in plan.jobs.values()]
    waiting = [need for step in steps if isinstance(step, TunedTrain) for need in step.needs]
    assert waiting
    found: dict[str, Step] = {}
    while waiting:
        step = waiting.pop()
        if step.id not in found:
            found[step.id] = step
            waiting += step.needs
    return list(found.values())


@pytest.mark.parametrize("halving", [False, True])
def test_what_chooses_asks_for_validation_tasks_alone(
    tuned: Content, write_matrix: Callable[[Any], Path], tmp_path: Path, halving: bool
) -> None:
    tuned["pairs"] = [
        {"teacher": "teacher", "student": "same", "methods": ["sft", "kd"]},
        {"teacher": "teacher", "student": "cross", "methods": ["dskd-v2-eta"]},
    ]
    tuned["tasks"] |= {"small_instruct": {}, "small_code": {}}
    tuned["tuning"] |= {"budget": 4, "halving": halving}
    before = made_for_choosing(make_plan(str(write_matrix(tuned)), output_dir=tmp_path / "run"))
    evaluations = [step for step in before if isinstance(step, Evaluate)]
    assert len(evaluations) == 3 * (4 + 2 + 1 if halving else 4) + 1  # of trials, and the teacher's
    assert all(isinstance(step, Validate) for step in evaluations)
    asked = {task.task for step in evaluations for task in step.tasks}
    assert asked == {"small_math:validation", "small_instruct:validation", "small_code:validation"}
    for step in evaluations:
        assert isinstance(step, Validate)
        assert step.tested == ["small_code", "small_instruct", "small_math"]
        assert {output.cell.task for output in step.outputs if output.cell} == asked
    rankings = [step for step in before if isinstance(step, Ranking)]
    assert all(set(candidate.outputs) <= asked for ranking in rankings for candidate in ranking.candidates)


def test_a_ranking_refuses_a_record_of_test_items(tmp_path: Path) -> None:
    write_run(tmp_path, methods=["kd"])
    record = next(tmp_path.glob(f"**/kd/**/eval/*/{RESULT}"))
    with pytest.raises(
        InputError, match="is of small_math, which is no validation task, and settings are never chosen by"
    ):
        _score(record.parent)
    content = json.loads(record.read_text())
    content["cell"]["task"] = "small_math:validation"
    record.write_text(json.dumps(content))
    assert _score(record.parent) == content["metrics"][content["headline"]]["value"]
