"""A model folder and tasks in, answers and scores out: every document once, in order, with its own answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from dskd.errors import InputError
from harness import tasks
from harness.engines._types import Completion, Sampling
from harness.evaluation.evaluate import EvaluationOptions, EvaluationProgress, evaluate
from harness.evaluation.score import score_predictions
from harness.evaluation.summary import summarise
from harness.protocols import DecodingProtocol
from helpers.tiny_models import write_gpt2

TASK = """
from harness.metrics.sample import SampleScore
from harness.tasks import Metric, Task


class Mine(Task):
    name = "NAME"
    version = "3"
    metrics = (Metric("length", kind="continuous"),)
    max_new_tokens = 9
    stop = ("Question:",)
    runs_code = RUNS_CODE

    def documents(self):
        return [{"id": f"{self.name}/{n}", "question": "Say " + "so " * n + "much:"} for n in range(7)]

    def prompt(self, doc):
        return doc["question"]

    def reference(self, doc):
        return " much"

    def score_outputs(self, docs, outputs, advance):
        scores = []
        for doc, output in zip(docs, outputs, strict=True):
            scores.append(SampleScore({"length": float(len(output))}, {"last": output[-1:]}, "scored", detail=doc["id"]))
            advance()
        return scores


TASK = Mine
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(
        tmp_path_factory.mktemp("model"),
        "Say so much: the quick brown fox jumps over the lazy dog",
        initializer_range=0.3,
    )


@pytest.fixture
def own_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Three tasks of this test's own; the last is marked as running code."""
    tasks.load.cache_clear()
    for name in ("first_of_test", "second_of_test", "code_of_test"):
        folder = tmp_path / name
        folder.mkdir()
        text = TASK.replace("NAME", name).replace("RUNS_CODE", str(name == "code_of_test"))
        (folder / "task.py").write_text(text)
    monkeypatch.setattr("harness.tasks.registry.tasks_folder", lambda: tmp_path)
    yield
    tasks.load.cache_clear()


def run(model: Path, **options: Any) -> dict[str, Any] | None:
    chosen = {name: EvaluationOptions(**settings) for name, settings in options.pop("tasks").items()}
    return {done.task: done for done in evaluate(model, chosen, engine="transformers", **options)}


class Oracle:
    """An engine that knows the answers to the first documents of a task; `lost` are those that it forgets."""

    name = "oracle"
    on_finished = None

    def __init__(self, task: Any, lost: int = 0) -> None:
        self.task, self.lost, self.closed = task, lost, False
        self.sampling = None

    def complete(self, prompts: Any, sampling: Any, seeds: Any) -> Any:
        self.sampling = sampling
        assert len(seeds) == len(prompts)
        docs = self.task.docs(len(prompts))
        assert [self.task.prompt(doc) for doc in docs] == prompts
        self.on_finished(len(prompts))
        return [Completion(self.task.reference(doc), "stop", [1], [1]) for doc in docs[self.lost :]]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Callable:
    def make(task: Any, **more: Any) -> Any:
        engine = Oracle(tasks.load(task), **more)
        monkeypatch.setattr(sys.modules["harness.evaluation.evaluate"], "open_engine", lambda *_, **__: engine)
        return engine

    return make


def test_every_document_is_answered_once_in_order_with_all_that_is_known(
    model: Path, own_tasks: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(model, tasks={"second_of_test": {}, "first_of_test": {"limit": 4}})
    assert list(done) == ["second_of_test", "first_of_test"]  # as they were asked for
    assert [sample["id"] for sample in done["first_of_test"].samples] == [f"first_of_test/{n}" for n in range(4)]
    assert [sample["id"] for sample in done["second_of_test"].samples] == [f"second_of_test/{n}" for n in range(7)]
    for name, task_run in done.items():
        assert (task_run.version, task_run.engine) == ("3", "transformers")
        assert task_run.generated_tokens == sum(sample["generated_tokens"] for sample in task_run.samples) > 0
        assert task_run.seconds > 0
        for n, sample in enumerate(task_run.samples):
            assert sample == {
                "id": f"{name}/{n}",
                "index": 0,
                "seed": None,
                "prompt": "Say " + "so " * n + "much:",
                "output": sample["output"],
                "gold": " much",
                "scores": {"length": len(sample["output"])},
                "extracted": {"last": sample["output"][-1:]},
                "outcome": "scored",
                "detail": f"{name}/{n}",
                "finish_reason": "length",
                "generated_tokens": 9,
                "prompt_truncated": False,
            }
    assert len({sample["output"] for sample in done["second_of_test"].samples}) > 1
    assert capsys.readouterr().out == ""  # standard output is for data


def test_a_task_gives_the_same_whichever_others_run(model: Path, own_tasks: Any) -> None:
    alone = run(model, tasks={"first_of_test": {}})["first_of_test"]
    after = run(model, tasks={"second_of_test": {}, "first_of_test": {}})["first_of_test"]
    assert alone.samples == after.samples


def test_max_new_tokens_replaces_the_task_s_own(model: Path, own_tasks: Any) -> None:
    samples = run(model, tasks={"first_of_test": {"max_new_tokens": 4}})["first_of_test"].samples
    assert {sample["generated_tokens"] for sample in samples} == {4}


def test_progress_counts_every_sample_and_task(model: Path, own_tasks: Any) -> None:
    seen = []
    run(model, tasks={"first_of_test": {}, "second_of_test": {"limit": 2}}, progress=seen.append, max_batch_size=3)
    counts = [(each.tasks_done, each.samples_done) for each in seen]
    assert counts == [(0, 0), (0, 3), (0, 6), (0, 7), (1, 7), (1, 7), (1, 9), (2, 9)]
    assert seen[-1] == EvaluationProgress("second_of_test", 2, 2, 9, 9)


def test_a_run_is_given_as_soon_as_it_is_done(model: Path, own_tasks: Any) -> None:
    seen = []
    chosen = dict.fromkeys(["first_of_test", "second_of_test"], EvaluationOptions(limit=1))
    runs = evaluate(model, chosen, engine="transformers", progress=seen.append)
    assert next(runs).task == "first_of_test"
    assert seen[-1].samples_done == 1
    runs.close()


def test_code_runs_only_when_it_is_allowed(model: Path, own_tasks: Any) -> None:
    with pytest.raises(InputError, match="task code_of_test: it runs the code that a model wrote"):
        run(model, tasks={"first_of_test": {}, "code_of_test": {}})
    assert len(run(model, tasks={"code_of_test": {}}, allow_code_execution=True)["code_of_test"].samples) == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": {"no_such_task": {}}}, "task no_such_task: no such task"),
        ({"tasks": {}}, "there are none to evaluate"),
        ({"model": Path("absent")}, "absent: no such model folder"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    model: Path, own_tasks: Any, oracle: Callable, change: dict[str, Any], message: str
) -> None:
    engine = oracle("first_of_test")
    with pytest.raises(InputError, match=message):
        run(**{"model": model, "tasks": {"first_of_test": {}}} | change)
    assert engine.sampling is None


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError):
        EvaluationOptions(limt=3)
    with pytest.raises(ValidationError):
        EvaluationOptions(limit=0)


@pytest.mark.parametrize("name", ["small_instruct", "small_math", "small_code"])
def test_gold_answers_score_100_through_the_whole_pipeline(model: Path, oracle: Callable, name: str) -> None:
    engine = oracle(name)
    done = run(model, tasks={name: {"limit": 20}}, allow_code_execution=True)[name]
    headline = tasks.load(name).metrics[0].name
    assert [sample["scores"][headline] for sample in done.samples] == [100.0] * 20
    task = tasks.load(name)
    assert engine.sampling == Sampling(task.max_new_tokens, tuple(task.stop))
    assert engine.closed


def test_a_task_of_lm_eval_is_evaluated_as_one_of_the_harness_s_own(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_LM_EVAL_TASKS", str(tmp_path))
    (tmp_path / "data.jsonl").write_text("".join(f'{{"q": "Say {n}:", "a": "{n}"}}\n' for n in range(5)))
    config = {
        "task": "say",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "data.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{a}}",
        "generation_kwargs": {"until": ["Say"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    (tmp_path / "say.yaml").write_text(yaml.safe_dump(config))
    tasks.load.cache_clear()
    done = run(model, tasks={"lm_eval/say": {"limit": 3}, "small_math": {"limit": 2}})
    samples = done["lm_eval/say"].samples
    assert [sample["prompt"] for sample in samples] == ["Say 0:", "Say 1:", "Say 2:"]
    assert [sample["gold"] for sample in samples] == [" 0", " 1", " 2"]
    assert all(set(sample["scores"]) == {"exact_match,none"} for sample in samples)
    assert max(sample["generated_tokens"] for sample in samples) <= 4
    assert done["lm_eval/say"].version == "1.0"


def test_a_completion_that_is_lost_is_an_error_and_no_score(model: Any, own_tasks: Any, oracle: Any) -> None:
    engine = oracle("first_of_test", lost=1)
    with pytest.raises(ValueError, match="6 outputs for 7 documents"):
        run(model, tasks={"first_of_test": {}})
    assert engine.closed


PROTOCOL = DecodingProtocol(name="drawn", temperature=1.0, seeds=(10, 20), samples=2)


def drawn(model: Path, **options: Any) -> Any:
    chosen = {"drawn": EvaluationOptions(task="first_of_test", protocol=options.pop("protocol", PROTOCOL))}
    (done,) = evaluate(model, chosen, engine="transformers", **options)
    return done


def test_several_answers_a_prompt_have_an_index_and_a_seed_and_are_alike_in_any_batch(
    model: Path, own_tasks: Any
) -> None:
    progress = []
    done = drawn(model, max_batch_size=7, progress=progress.append)
    assert (done.name, done.task) == ("drawn", "first_of_test")
    assert [(sample["id"], sample["index"], sample["seed"]) for sample in done.samples] == [
        (f"first_of_test/{n}", index, seed) for n in range(7) for index, seed in enumerate((10, 10, 20, 20))
    ]
    assert (progress[-1].samples_done, progress[-1].samples_total) == (28, 28)
    assert drawn(model, max_batch_size=1).samples == done.samples
    texts = [sample["output"] for sample in done.samples]
    assert len(set(texts)) > 20
    # A seed's own answers do not depend on the other seeds.
    alone = drawn(model, protocol=PROTOCOL.model_copy(update={"seeds": (20,)}))
    assert [sample["output"] for sample in alone.samples] == [
        sample["output"] for sample in done.samples if sample["seed"] == 20
    ]
    other = drawn(model, protocol=PROTOCOL.model_copy(update={"seeds": (11, 21)}))
    assert not set(texts) & {sample["output"] for sample in other.samples}


def test_a_protocol_without_seeds_takes_the_evaluation_s(model: Path, own_tasks: Any) -> None:
    protocol = PROTOCOL.model_copy(update={"seeds": None})
    first, second = (drawn(model, protocol=protocol, seed=seed).samples for seed in (10, 20))
    assert {sample["seed"] for sample in first} == {10}
    drawn_by_both = drawn(model).samples
    for seed, samples in ((10, first), (20, second)):
        assert [s["output"] for s in samples] == [s["output"] for s in drawn_by_both if s["seed"] == seed]


def test_a_run_and_harness_score_give_the_same_numbers_for_several_samples(
    model: Path, own_tasks: Any, tmp_path: Path
) -> None:
    samples = drawn(model).samples
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(f"{json.dumps({k: s[k] for k in ('id', 'output', 'finish_reason')})}\n" for s in samples))
    task = tasks.load("first_of_test")
    _, summary = score_predictions(task, path)
    assert summary == summarise(task, samples)
    metric = summary["metrics"]["length"]
    means = [fmean(s["scores"]["length"] for s in samples if s["id"] == f"first_of_test/{n}") for n in range(7)]
    assert metric["n"] == 7
    assert metric["value"] == pytest.approx(fmean(means), abs=1e-4)
    assert metric["stderr"] == pytest.approx(
        stdev(means) / 7**0.5, abs=1e-4
    )  # prompts are independent, samples are not


def test_a_protocol_s_prompts_keep_their_first_tokens(model: Path, own_tasks: Any) -> None:
    protocol = DecodingProtocol(name="cut", max_prompt_tokens=6, prompt_kept="first", max_new_tokens=3)
    samples = drawn(model, protocol=protocol).samples
    assert not samples[0]["prompt_truncated"]
    assert [samples[n]["prompt_truncated"] for n in (5, 6)] == [True, True]
    assert samples[5]["output"] == samples[6]["output"]  # "Say so so …" to the sixth token
    assert {sample["generated_tokens"] for sample in samples} == {3}
