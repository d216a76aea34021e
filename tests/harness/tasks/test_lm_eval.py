"""The tasks as lm-eval sees them: found in our folder alone, asked with our prompts, scored once by our scoring."""

from __future__ import annotations

from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from harness import sandbox, tasks
from harness.metrics.sample import SampleScore
from harness.tasks.lm_eval_export import LmEvalFunctions, write_lm_eval_tasks


class Answers(LM):
    """A model that answers even documents rightly and the others with nothing."""

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        self.settings = [request.args[1] for request in requests]
        outputs = []
        for request in requests:
            task = tasks.load(request.task_name)
            assert request.args[0] == task.prompt(request.doc)
            outputs.append(task.reference(request.doc) if request.doc_id % 2 == 0 else "no")
        return outputs

    def loglikelihood(self, requests: Any) -> None:
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: Any) -> None:
        raise NotImplementedError


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return TaskManager(include_path=str(write_lm_eval_tasks(tmp_path_factory.mktemp("tasks"))), include_defaults=False)


def evaluate(manager: Any, name: str, allow_code_execution: bool = True) -> tuple[dict[str, Any], Any] | None:
    model = Answers()
    results = simple_evaluate(
        model,
        tasks=[name],
        task_manager=manager,
        limit=6,
        bootstrap_iters=0,
        log_samples=True,
        confirm_run_unsafe_code=allow_code_execution,
    )
    return results, model


def test_lm_eval_finds_exactly_our_tasks(manager: Any) -> None:
    assert sorted(manager.all_tasks) == tasks.names()


@pytest.mark.parametrize("name", ["small_instruct", "small_math", "small_code", "humaneval", "sinst", "mbpp"])
def test_lm_eval_s_scores_are_ours(
    manager: Any, name: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if name in ("sinst", "mbpp"):
        monkeypatch.setenv("HARNESS_DATA", str(request.getfixturevalue("real_data")))
    executions = []
    run_programs = sandbox.run_programs
    monkeypatch.setattr(
        "harness.metrics.code.run_programs",
        lambda sources, **more: executions.append(len(sources)) or run_programs(sources, **more),
    )
    results, model = evaluate(manager, name)
    task = tasks.load(name)
    headline = task.metrics[0].name
    assert set(map(str, model.settings)) == {
        str({"until": list(task.stop), "max_gen_toks": task.max_new_tokens, "do_sample": False})
    }
    assert executions == ([6] if task.runs_code else [])  # all at once, and no output twice
    assert results["versions"][name] == task.version
    assert results["results"][name][f"{headline},harness"] == pytest.approx(50.0, abs=1.0)
    samples = results["samples"][name]
    for sample, doc in zip(samples, task.docs(6), strict=True):
        (score,) = sample["filtered_resps"][0]
        assert isinstance(score, SampleScore)
        assert sample["doc"]["id"] == doc["id"]
        assert sample[headline] == score.scores[headline]
        assert sample["resps"][0][0] in (task.reference(doc), "no")
    assert samples[0]["filtered_resps"][0][0].scores[headline] == 100.0


def test_lm_eval_refuses_to_run_code_without_permission(manager: Any) -> None:
    with pytest.raises(ValueError, match="confirm_run_unsafe_code"):
        evaluate(manager, "small_code", allow_code_execution=False)


def test_the_mean_over_repeats_leaves_out_what_could_not_be_scored() -> None:
    process_results = LmEvalFunctions(tasks.load("small_code")).process_results
    scores = [SampleScore({"pass@1": value}, {}, "x") for value in (100.0, 0.0, None)]
    assert process_results({}, [scores]) == {"pass@1": 50.0}
    assert process_results({}, [scores[2:]]) == {}
