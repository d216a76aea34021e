"""Tasks of lm-eval by name: a local one evaluated as lm-eval evaluates it, and what is refused before anything runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval.api.model import LM
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from dskd.errors import InputError
from harness import tasks
from harness.config.matrix_file import read_matrix
from harness.planning.plan import make_plan
from harness.runs.store import eval_folder

ROWS = [{"question": f"What is {n} + {n}?", "answer": f"Twice {n}.\n#### {2 * n}"} for n in range(12)]
SUMS = {
    "task": "sums",
    "dataset_path": "json",
    "training_split": "train",
    "fewshot_split": "train",
    "test_split": "test",
    "output_type": "generate_until",
    "description": "Add up.\n\n",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "{{answer}}",
    "num_fewshot": 2,
    "generation_kwargs": {"until": ["Question:"], "max_gen_toks": 7, "do_sample": False, "temperature": 0.0},
    "filter_list": [
        {
            "name": "strict",
            "filter": [{"function": "regex", "regex_pattern": "#### ([0-9]+)"}, {"function": "take_first"}],
        },
        {
            "name": "last",
            "filter": [
                {"function": "regex", "regex_pattern": "([0-9]+)", "group_select": -1},
                {"function": "take_first"},
            ],
        },
    ],
    "metric_list": [
        {
            "metric": "exact_match",
            "aggregation": "mean",
            "higher_is_better": True,
            "regexes_to_ignore": ["(?s).*#### "],
        }
    ],
    "metadata": {"version": 2.5},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A folder of lm-eval tasks of one's own, with `sums` and its data."""
    monkeypatch.setenv("HARNESS_LM_EVAL_TASKS", str(tmp_path))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for split, rows in (("train", ROWS[6:]), ("test", ROWS[:6])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "test")}
    write(tmp_path, "base", {**SUMS, "dataset_kwargs": {"data_files": files}}, drop=("task",))
    write(tmp_path, "sums", {"include": "base.yaml", "task": "sums"})
    tasks.load.cache_clear()
    yield tmp_path
    tasks.load.cache_clear()


def write(folder: Path, name: str, config: dict[str, Any], drop: tuple[Any, ...] = ()) -> None:
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({k: v for k, v in config.items() if k not in drop}))


class Answers(LM):
    """Answers the n-th prompt with the n-th of some texts, and keeps what it was asked."""

    OUTPUTS = (" Twice 0.\n#### 0", " 2", " #### 5", " none", " #### 8 or 9", "")

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        self.prompts = [request.args[0] for request in requests]
        return list(self.OUTPUTS)

    def loglikelihood(self, requests: Any) -> None:
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: Any) -> None:
        raise NotImplementedError


def test_prompts_scores_and_settings_are_those_of_lm_eval_s_own_run(folder: Path) -> None:
    model = Answers()
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    theirs = manager.load(["sums"])
    theirs["tasks"]["sums"].set_fewshot_seed(DEFAULT_OTHER_SEED)  # as simple_evaluate does
    results = evaluate(model, theirs, bootstrap_iters=0, log_samples=False)
    task = tasks.load("lm_eval/sums")
    docs = task.docs()
    assert [task.prompt(doc) for doc in docs] == model.prompts
    assert docs[0]["prompt"].count("Question:") == 3
    assert task.prompt(docs[0]).startswith("Add up.\n\n")
    assert (task.version, task.stop, task.max_new_tokens) == ("2.5", ("Question:",), 7)
    scores = task.score_many(docs, Answers.OUTPUTS)
    assert [metric.name for metric in task.metrics] == ["exact_match,strict", "exact_match,last"]
    for metric in task.metrics:
        mean = sum(score.scores[metric.name] for score in scores) / len(scores)
        assert mean == pytest.approx(100 * results["results"]["sums"][metric.name])
        assert 0 < mean < 100
    assert [score.outcome for score in scores] == ["correct", "invalid", "wrong", "invalid", "correct", "invalid"]
    assert scores[4].extracted == {"strict": "8", "last": "9"}
    assert [task.score(doc, task.reference(doc)).scores for doc in docs] == [dict.fromkeys(scores[0].scores, 100.0)] * 6


def test_a_limit_changes_no_prompt_and_a_template_takes_the_whole_one(folder: Path) -> None:
    task = tasks.load("lm_eval/sums")
    assert task.docs(2) == task.docs()[:2]
    assert task.instruction(task.docs()[0]).instruction == task.docs()[0]["prompt"]
    assert task.as_chat().stop == ("Question:",)


def test_the_identity_holds_the_files_the_documents_and_lm_eval_s_version(folder: Path) -> None:
    def identity() -> dict[str, str]:
        tasks.load.cache_clear()
        return tasks.load("lm_eval/sums").identity()

    first = identity()
    assert first == identity()
    assert first["lm_eval"].startswith("0.4.")
    (folder / "base.yaml").write_text((folder / "base.yaml").read_text() + "# a remark\n")
    second = identity()
    assert {key for key in first if first[key] != second[key]} == {"yaml"}  # an included file counts, too
    (folder / "test.jsonl").write_text((folder / "test.jsonl").read_text().replace("What is 5", "How much is 5"))
    assert {key for key in first if second[key] != identity()[key]} == {"documents"}


REFUSED = {
    "output_type is loglikelihood_rolling; fix: choose a task of generate_until": {
        "output_type": "loglikelihood_rolling"
    },
    "samples its answers": {"generation_kwargs": {"until": [], "do_sample": True}},
    "runs generated code outside of the sandbox": {"unsafe_code": True},
    "bleu is computed over the whole corpus": {
        "metric_list": [{"metric": "bleu", "aggregation": "bleu", "higher_is_better": True}]
    },
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_does_not_fit_is_refused_while_planning_in_one_line(
    folder: Path, reason: str, tiny_matrix: Callable
) -> None:
    write(folder, "other", {**SUMS, "task": "other", "dataset_path": "nobody/absent", **REFUSED[reason]})
    with pytest.raises(
        InputError, match=rf"matrix\.yaml: tasks\.lm_eval/other: task lm_eval/other: .*{reason}"
    ) as error:
        read_matrix(tiny_matrix("lm_eval/other"))
    assert "\n" not in str(error.value)


@pytest.fixture
def tiny_matrix(tmp_path: Path) -> Callable:
    """A matrix file with one task."""

    def write_file(task: str) -> Path:
        path = tmp_path / "matrix.yaml"
        model = {
            "config": {
                "model_type": "llama",
                **dict.fromkeys(("hidden_size", "intermediate_size"), 32),
                "num_attention_heads": 2,
            },
            "tokenizer": {"small_world": "bytelevel"},
            "seed": 1,
        }
        path.write_text(
            yaml.safe_dump(
                {
                    "schema_version": 1,
                    "name": "tiny",
                    "data": {"student": {"small_world": "student", "limit": 24}},
                    "models": {"one": model, "two": model},
                    "pairs": [{"teacher": "one", "student": "two", "methods": ["kd"]}],
                    "training": {"data": "student", "steps": 2, "batch_size": 2, "max_length": 200},
                    "seeds": [1],
                    "tasks": {task: {"limit": 2}},
                }
            )
        )
        return path

    return write_file


def test_a_matrix_may_name_a_task_of_lm_eval(folder: Path, tiny_matrix: Callable) -> None:
    path = tiny_matrix("lm_eval/sums")
    assert list(read_matrix(path).tasks) == ["lm_eval/sums"]
    plan = make_plan(str(path), output_dir=folder / "run")
    outputs = [output.output for job in plan.jobs.values() if job.kind == "evaluate" for output in job.outputs]
    assert {output.cell.task for output in outputs} == {"lm_eval/sums"}
    assert all(output.folder.endswith("/eval/lm_eval+sums@v2.5") for output in outputs)
    assert all(output.fingerprint.parts.items() >= tasks.load("lm_eval/sums").identity().items() for output in outputs)
    assert eval_folder("a__b/kd/seed1", "lm_eval/sums", "2.5").endswith("/eval/lm_eval+sums@v2.5")


def test_a_task_whose_data_is_on_the_hub_alone_fails_in_one_line(folder: Path) -> None:
    write(folder, "far", {**SUMS, "task": "far", "dataset_path": "nobody/absent"})
    task = tasks.load("lm_eval/far")
    with pytest.raises(
        InputError, match=r"task lm_eval/far: lm-eval cannot load its data set nobody/absent: .*; fix: run"
    ) as error:
        task.docs()
    assert "\n" not in str(error.value)


def test_an_unknown_task_and_a_folder_that_is_none_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="lm_eval/no_such_task: lm-eval has no task of this name; fix: correct it"):
        tasks.load("lm_eval/no_such_task")
    monkeypatch.setenv("HARNESS_LM_EVAL_TASKS", str(folder / "gone"))
    with pytest.raises(InputError, match=r"HARNESS_LM_EVAL_TASKS: .*gone is not a folder"):
        tasks.load("lm_eval/sums")


def test_a_metric_that_is_no_share_is_refused_when_it_scores(folder: Path) -> None:
    config = yaml.safe_load((folder / "base.yaml").read_text())
    (folder / "odd.py").write_text("def score(doc, results):\n    return {'length': len(results[0])}\n")
    metric = [{"metric": "length", "aggregation": "mean", "higher_is_better": True}]
    write(folder, "odd", {**config, "task": "odd", "metric_list": metric, "process_results": "FUNCTION"})
    text = (folder / "odd.yaml").read_text().replace("FUNCTION", "!function odd.score")
    (folder / "odd.yaml").write_text(text)
    task = tasks.load("lm_eval/odd")
    with pytest.raises(InputError, match="its metric length,strict gave 9 on one output"):
        task.score(task.docs()[0], "#### 100000000")


def test_lm_eval_s_own_tasks_are_found_by_their_names() -> None:
    task = tasks.load("lm_eval/gsm8k_cot")
    assert task.version == "3.0"
    assert [metric.name for metric in task.metrics] == ["exact_match,strict-match", "exact_match,flexible-extract"]
    assert Counter(task.stop) == Counter(["Q:", "</s>", "<|im_end|>"])
    assert {metric.kind for metric in task.metrics} == {"binary"}
