"""Tasks of lm-eval that ask for log-likelihoods: the contexts, values and scores of lm-eval's own evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dskd.errors import InputError
from dskd.modeling.loading import load_model, load_tokenizer
from harness import tasks
from harness.engines._types import LogLikelihood
from harness.evaluation.contamination import items_of
from harness.evaluation.evaluate import EvaluationOptions, evaluate
from harness.evaluation.summary import summarise
from harness.protocols import GREEDY, PROTOCOLS
from helpers.llama_folders import write_llama
from helpers.lm_eval_folder import TASKS, write_task, write_tasks
from helpers.tiny_models import write_gpt2
from helpers.tiny_tokenizers import sentencepiece


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A byte-level GPT-2 without a begin token, and a SentencePiece Llama with one."""
    folder = tmp_path_factory.mktemp("models")
    text = "Which city is the capital of Portugal? Answer: Lisbon, as everybody knows"
    return {
        "gpt2": write_gpt2(folder / "gpt2", text, initializer_range=0.4),
        "llama": write_llama(folder / "llama", tokenizer=sentencepiece(), initializer_range=0.4),
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HARNESS_LM_EVAL_TASKS", str(tmp_path / "tasks"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tasks.load.cache_clear()
    yield write_tasks(tmp_path / "tasks")
    tasks.load.cache_clear()


def lm_eval_run(folder: Path, model: Path) -> dict[str, Any]:
    """What lm-eval's evaluation of these tasks finds, with its samples."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    lm = HFLM(
        pretrained=load_model(model).eval(), tokenizer=load_tokenizer(model), batch_size=3, device="cpu", max_length=512
    )
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = simple_evaluate(lm, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0, log_samples=True)
    assert found is not None
    return found


def our_runs(model: Path, **options: Any) -> dict[str, Any]:
    chosen = {f"lm_eval/{name}": EvaluationOptions(**options) for name in TASKS}
    return {done.name: done for done in evaluate(model, chosen, engine="transformers", max_batch_size=5)}


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_values_and_scores_are_those_of_lm_eval_s_own_evaluation(
    folder: Path, models: dict[str, Path], model: str
) -> None:
    theirs, ours = lm_eval_run(folder, models[model]), our_runs(models[model])
    assert set(ours) == {f"lm_eval/{name}" for name in TASKS}
    checked = 0
    for name in TASKS:
        task, run = tasks.load(f"lm_eval/{name}"), ours[f"lm_eval/{name}"]
        assert (run.version, run.generated_tokens, len(run.samples)) == ("1.5", 0, 7)
        for sample, logged in zip(run.samples, theirs["samples"][name], strict=True):
            assert sample["id"] == str(logged["doc_id"])
            asked = [tuple(each) for each in logged["arguments"]]
            assert task.continuations(task.docs()[int(sample["id"])]) == asked
            values = [each[0] for each in logged["filtered_resps"]]
            assert [each["value"] for each in sample["loglikelihoods"]] == pytest.approx(values, abs=1e-4)
            assert [each["is_greedy"] for each in sample["loglikelihoods"]] == [
                each[1] for each in logged["filtered_resps"]
            ]
            for metric in task.metrics:
                assert sample["scores"][metric.name] == 100 * logged[metric.name.partition(",")[0]]
        summary = summarise(task, run.samples)
        for metric in task.metrics:
            expected = 100 * theirs["results"][name][metric.name]
            assert summary["metrics"][metric.name]["value"] == pytest.approx(expected, abs=1e-4)
            checked += 0 < expected < 100
    assert checked > 3


def test_metrics_are_lm_eval_s_means(folder: Path) -> None:
    names = {name: [metric.name for metric in tasks.load(f"lm_eval/{name}").metrics] for name in TASKS}
    assert names == {
        "capitals": ["acc,none", "acc_norm,none", "acc_mutual_info,none"],
        "letters": ["acc,none", "acc_norm,none"],
        "either": ["acc,none", "exact_match,none"],
        "blanks": ["acc,none"],
        "last_word": ["acc,none"],  # perplexity is left out
    }
    assert {metric.kind for name in TASKS for metric in tasks.load(f"lm_eval/{name}").metrics} == {"binary"}


def test_a_sample_says_what_was_chosen_and_how_likely_each_choice_is(folder: Path, models: dict[str, Path]) -> None:
    runs = our_runs(models["gpt2"], limit=2)
    (sample, _) = runs["lm_eval/capitals"].samples
    assert sample["prompt"].startswith("Capitals.\n\nWhich city")
    assert sample["prompt"].endswith("capital of Portugal?\nAnswer:")
    assert sample["prompt"].count("Which city") == 3
    assert [each["text"] for each in sample["loglikelihoods"][:3]] == [" Lisbon", " Oslo", " Vienna"]
    assert len(sample["loglikelihoods"]) == 6  # and each without its context
    best = max(sample["loglikelihoods"][:3], key=lambda each: each["value"])
    assert sample["output"] == sample["extracted"]["chosen"] == best["text"]
    assert sample["gold"] == " Lisbon"
    assert sample["outcome"] == ("correct" if sample["output"] == " Lisbon" else "wrong")
    assert (sample["seed"], sample["index"], sample["generated_tokens"]) == (None, 0, 0)
    assert "finish_reason" not in sample
    blank = runs["lm_eval/blanks"].samples[1]
    assert blank["prompt"].endswith("knows\n\nThe capital of Norway is ")
    assert blank["gold"] == "Oslo as everybody knows"
    assert [each["text"] for each in blank["loglikelihoods"]][1] == blank["gold"]
    word = runs["lm_eval/last_word"].samples[0]
    assert (word["prompt"], word["gold"]) == ("The capital of Portugal is", " Lisbon")
    assert word["output"] == (" Lisbon" if word["outcome"] == "correct" else "")
    assert all(run.template is None for run in runs.values())


def test_a_limit_changes_no_context_and_the_identity_holds_all_that_counts(folder: Path) -> None:
    task = tasks.load("lm_eval/capitals")
    assert task.docs(2) == task.docs()[:2]
    first = task.identity()
    (folder / "test.jsonl").write_text((folder / "test.jsonl").read_text().replace("Oslo", "Bergen"))
    tasks.load.cache_clear()
    second = tasks.load("lm_eval/capitals").identity()
    assert {key for key in first if first[key] != second[key]} == {"documents"}


def test_the_item_s_own_text_is_searched_for_in_training_data(folder: Path) -> None:
    for name, question, answer in (
        ("capitals", "Which city is the capital of Portugal?\nAnswer:", " Lisbon"),
        ("blanks", "The capital of Portugal is Lisbon as everybody knows", "Lisbon as everybody knows"),
        ("last_word", "The capital of Portugal is", " Lisbon"),
    ):
        task = tasks.load(f"lm_eval/{name}")
        item = items_of(task, task.docs(1))[0]
        assert (item.question, item.answer) == (question, answer)


def test_a_score_may_lie_between(folder: Path) -> None:
    (folder / "share.py").write_text(
        "import numpy\n\n\ndef share(row, results):\n"
        "    likely = numpy.exp([value for value, _ in results])\n"
        "    return {'acc': likely[row['gold']] / likely.sum()}\n"
    )
    config = yaml.safe_load((folder / "capitals.yaml").read_text())
    write_task(
        folder,
        "share",
        {
            **config,
            "task": "share",
            "metric_list": config["metric_list"][:1],
            "process_results": "!function share.share",
        },
    )
    task = tasks.load("lm_eval/share")
    (score,) = task.score_loglikelihoods(
        task.docs(1), [[LogLikelihood(0.0, False, 1), *[LogLikelihood(0.0, False, 1)] * 2]], lambda: None
    )
    assert score.scores["acc,none"] == pytest.approx(100 / 3)
    assert score.outcome == "scored"


REFUSED = {
    "its metric acc,none gave .* on one output; fix: choose a task whose metrics are 0 to 1": {
        "process_results": "!function odd.gap"
    },
    "its metric perplexity is computed over the whole corpus": {
        "metric_list": [{"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}]
    },
    "its output_type is loglikelihood_rolling; fix: choose a task of generate_until": {
        "output_type": "loglikelihood_rolling"
    },
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_does_not_fit_is_refused_before_a_model_is_loaded(folder: Path, reason: str) -> None:
    (folder / "odd.py").write_text("def gap(row, results):\n    return {'acc': results[0][0] - results[1][0]}\n")
    config = yaml.safe_load((folder / "letters.yaml").read_text())
    write_task(folder, "odd", {**config, "task": "odd", **REFUSED[reason]})
    with pytest.raises(InputError, match=rf"task lm_eval/odd: {reason}") as error:
        tasks.load("lm_eval/odd").docs()
    assert "\n" not in str(error.value)


def test_a_group_or_tag_is_refused_with_its_tasks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.tasks.lm_eval_yaml.tasks_of_lm_eval", lambda: folder / "none")  # 14,000 files
    for name in ("letters", "either"):
        path = folder / f"{name}.yaml"
        path.write_text(f'{path.read_text()}"tag":\n  - chosen\n')
    (folder / "all.yaml").write_text(
        "group: everything\ntask:\n  - chosen\n  - last_word\n  - group: inner\n    task: [x]\n"
    )
    with pytest.raises(
        InputError,
        match=r"^task lm_eval/everything: it is a group of 4 tasks; fix: name its tasks one by one "
        r"\(lm_eval/either, lm_eval/last_word, lm_eval/letters, ...\)$",
    ):
        tasks.load("lm_eval/everything")
    with pytest.raises(InputError, match=r"group of 2 tasks.*\(lm_eval/either, lm_eval/letters\)$"):
        tasks.load("lm_eval/chosen")


def test_tasks_of_quoted_keys_are_found_too() -> None:
    assert tasks.load("lm_eval/mmlu_anatomy").metrics[0].name == "acc,none"
    assert [metric.name for metric in tasks.load("lm_eval/arc_easy").metrics] == ["acc,none", "acc_norm,none"]
    assert [metric.name for metric in tasks.load("lm_eval/lambada_openai").metrics] == ["acc,none"]


@pytest.mark.parametrize(
    "options",
    [
        {"protocol": PROTOCOLS["pass@1-sampling"]},
        {"max_new_tokens": 8},
        {"protocol": GREEDY.with_reasoning(64)},
        {"protocol": GREEDY.model_copy(update={"max_prompt_tokens": 8})},
    ],
    ids=["sampling", "limit", "reasoning", "prompt"],
)
def test_nothing_is_drawn_so_a_protocol_is_refused(
    folder: Path, models: dict[str, Path], options: dict[str, Any]
) -> None:
    asked = {"lm_eval/letters": EvaluationOptions(**options)}
    with pytest.raises(InputError, match=r"task lm_eval/letters: it is scored by log-likelihoods .*; fix: leave out"):
        evaluate(models["gpt2"], asked, engine="transformers")


def test_a_model_with_a_template_is_given_the_same_texts(folder: Path, models: dict[str, Path], tmp_path: Path) -> None:
    from shutil import copytree

    templated = copytree(models["llama"], tmp_path / "templated")
    (templated / "chat_template.jinja").write_text("<s>{% for m in messages %}[{{ m['content'] }}]{% endfor %}")
    plain, chat = our_runs(models["llama"], limit=3), our_runs(templated, limit=3)
    for name, run in plain.items():
        assert json.dumps(run.samples) == json.dumps(chat[name].samples)
