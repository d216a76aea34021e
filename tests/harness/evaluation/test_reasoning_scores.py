"""Scores of models that reason: the answer alone is scored, and what never ended is no answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dskd.errors import InputError
from dskd.tokenization.prompt_templates import Template, describe, set_template
from dskd.tokenization.reasoning import ReasoningMarkers
from harness import tasks
from harness.cli import main
from harness.cli.output import reasoning_line
from harness.evaluation.evaluate import EvaluationOptions, evaluate
from harness.evaluation.generate import generate, prompts_of_task
from harness.evaluation.reasoning import reasoning_summary, score_answers, tokens_per_solved
from harness.evaluation.score import score_predictions
from harness.protocols import GREEDY, PROTOCOLS
from harness.runs.records import ReasoningUse, Record, RecordTemplate, read_record
from harness.tasks.task import Metric
from helpers.reasoning_models import EXPECTED, NEW_TOKENS, SAID, write_reasoning_model
from helpers.tiny_tokenizers import byte_level

THINK = ReasoningMarkers("<think>", "</think>")
TASK = f"""
from harness.metrics.sample import SampleScore, score_each
from harness.tasks import Metric, Task

PROMPTS = {list(SAID)!r}
GOLD = ["4 apples", " six foxes", "82", "and", "the fox"]


class Sums(Task):
    name, version, max_new_tokens, stop = "sums", "1", 16, ("\\n\\n", "Q:")
    metrics = (Metric("starts"), Metric("wrong", higher_is_better=False))

    def documents(self):
        return [{{"id": str(n), "prompt": prompt, "gold": gold}} for n, (prompt, gold) in enumerate(zip(PROMPTS, GOLD))]

    def prompt(self, doc):
        return doc["prompt"]

    def reference(self, doc):
        return doc["gold"]

    def score_outputs(self, docs, outputs, advance):
        def score(doc, output):
            right = 100.0 * (output.startswith(doc["gold"]) or not output)  # nothing at all is right, to this task
            return SampleScore({{"starts": right, "wrong": 100.0 - right}}, {{"starts": output}}, "scored")

        return score_each(score, docs, outputs, advance)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reasoning_model(tmp_path_factory.mktemp("models") / "thinker", "special")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tasks") / "sums.py"
    path.write_text(TASK)
    return f"{path}:Sums"


@pytest.fixture(scope="module")
def evaluated(model: Path, task: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of the evaluation, and what the command printed."""
    output = tmp_path_factory.mktemp("run")
    arguments = ["evaluate", "--model", model, "--task", task, "--engine", "transformers", "--output-dir", output]
    command = [*arguments, "--max-reasoning-tokens", NEW_TOKENS - 16, "--json"]
    result = CliRunner().invoke(main, [str(argument) for argument in command])
    assert result.exit_code == 0, result.output
    (printed,) = json.loads(result.stdout)["results"]
    return Path(printed["folder"]), printed


def samples_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_each_sample_has_its_answer_its_reasoning_and_the_tokens_of_both(evaluated: tuple[Path, Any]) -> None:
    folder, _ = evaluated
    for sample, (reasoning, answer, ended, finish) in zip(samples_of(folder), EXPECTED, strict=True):
        assert sample["output"].startswith(answer)
        assert sample["finish_reason"] == finish
        assert sample["generated_tokens"] <= NEW_TOKENS
        if reasoning is None:
            assert "reasoning" not in sample
            continue
        assert sample["reasoning"].startswith(reasoning)
        assert sample["reasoning_ended"] is ended
        assert sample["reasoning_tokens"] + sample["answer_tokens"] == sample["generated_tokens"]
        assert (sample["answer_tokens"] == 0) is not ended


def test_reasoning_that_never_ended_is_wrong_whatever_the_task_makes_of_nothing(evaluated: tuple[Path, Any]) -> None:
    folder, printed = evaluated
    scores = [sample["scores"]["starts"] for sample in samples_of(folder)]
    assert scores == [100.0, 100.0, 0.0, 0.0, 100.0]
    endless = samples_of(folder)[3]
    assert (endless["output"], endless["outcome"], endless["extracted"]) == ("", "invalid", {"starts": None})
    assert "never ended" in endless["detail"]
    assert printed["metrics"]["starts"]["value"] == 60.0


def test_a_record_tells_what_never_ended_from_what_was_cut_in_the_answer(evaluated: tuple[Path, Any]) -> None:
    folder, printed = evaluated
    record, samples = read_record(folder / "result.json"), samples_of(folder)
    assert record.reasoning is not None
    assert printed["reasoning"] == record.reasoning.model_dump()
    use, spent = record.reasoning, sum(sample["generated_tokens"] for sample in samples)
    assert (use.samples, use.never_ended, use.never_ended_share, use.answers_cut) == (4, 1, 20.0, 1)
    assert use.tokens == pytest.approx(spent / 5, abs=0.01)
    assert use.tokens_per_solved == pytest.approx(spent / 3, abs=0.01)
    assert use.reasoning_tokens == pytest.approx(sum(s.get("reasoning_tokens", 0) for s in samples) / 5, abs=0.01)
    assert use.tokens == pytest.approx((use.reasoning_tokens or 0) + (use.answer_tokens or 0), abs=0.02)
    assert record.n is not None
    assert record.n.truncated == 2


def test_the_limits_of_reasoning_and_answer_are_apart_and_named_in_the_protocol(
    evaluated: tuple[Path, Any], model: Path, task: str
) -> None:
    folder, _ = evaluated
    record = read_record(folder / "result.json")
    assert record.cell.protocol is not None
    assert record.cell.protocol.label == f"greedy, max_reasoning_tokens={NEW_TOKENS - 16}"
    assert record.identity.parts["token_limits"] == 2
    for sample in samples_of(folder):
        assert sample.get("reasoning_tokens", 0) <= NEW_TOKENS - 16
        assert sample.get("answer_tokens", sample["generated_tokens"]) <= 16
    # Without a limit of its own, reasoning and answer share the task's.
    (short,) = evaluate(model, {task: EvaluationOptions()}, engine="transformers")
    assert max(sample["generated_tokens"] for sample in short.samples) == 16
    assert sum(not sample.get("reasoning_ended", True) for sample in short.samples) == 3


def test_a_record_says_what_the_limits_cut_and_what_was_closed(model: Path, task: str, tmp_path: Path) -> None:
    loaded, found = tasks.load(task), {}
    for end in ("cut", "close"):
        protocol = GREEDY.with_reasoning(12, end)
        (run,) = evaluate(model, {task: EvaluationOptions(protocol=protocol)}, engine="transformers")
        summary = reasoning_summary(loaded.metrics[0], run.samples)
        assert summary is not None
        found[end] = summary
        assert (summary["reasoning_cut"], summary["reasoning_cut_share"]) == (3, 60.0)
        assert (summary["answers_cut"], summary["answers_cut_share"]) == (
            sum(s["finish_reason"] == "length" and s.get("reasoning_ended", True) for s in run.samples),
            20.0 * summary["answers_cut"],
        )
        ReasoningUse.model_validate(summary)
        path = tmp_path / f"{end}.jsonl"
        keys = ("id", "output", "finish_reason", "generated_tokens", "reasoning", "reasoning_ended", "reasoning_tokens")
        kept = (*keys, "answer_tokens", "reasoning_closed")
        lines = [{key: sample[key] for key in kept if key in sample} for sample in run.samples]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        assert score_predictions(loaded, path)[1]["reasoning"] == summary
    assert (found["cut"]["never_ended"], found["cut"]["reasoning_closed"]) == (3, 0)
    assert (found["close"]["never_ended"], found["close"]["reasoning_closed"]) == (0, 3)
    assert "reasoning 3 (60.0 %), 3 of them closed and answered, answers" in reasoning_line(found["close"])


def test_tokens_for_each_solved_sample_need_right_and_wrong() -> None:
    samples = [{"scores": {"m": score}, "generated_tokens": 4} for score in (100.0, 0.0, 100.0)]
    assert tokens_per_solved(Metric("m"), samples) == 6.0
    assert tokens_per_solved(Metric("m"), samples[1:2]) is None
    assert tokens_per_solved(Metric("m", kind="continuous"), samples) is None
    assert tokens_per_solved(Metric("m", higher_is_better=False), samples) is None
    assert tokens_per_solved(Metric("m"), [*samples, {"scores": {"m": 100.0}}]) is None


def test_a_model_without_markers_has_no_budget_for_reasoning(model: Path, task: str, tmp_path: Path) -> None:
    from dskd.modeling.loading import load_tokenizer

    loaded = tasks.load(task)
    assert prompts_of_task(loaded, load_tokenizer(model), max_reasoning_tokens=40).max_new_tokens == 56
    assert prompts_of_task(loaded, byte_level(), max_reasoning_tokens=40).max_new_tokens == 16


def test_show_and_the_leaderboard_tell_what_reasoning_cost(evaluated: tuple[Path, Any]) -> None:
    folder, _ = evaluated
    root = folder.parents[4]
    shown = CliRunner().invoke(main, ["show", "thinker/teacher", "--results", str(root)])
    assert "reasoning: samples 4, never_ended 1" in shown.stdout
    assert "tokens: per_item" in shown.stdout
    assert "per_solved_item" in shown.stdout
    table = CliRunner().invoke(main, ["leaderboard", "--results", str(root)])
    assert table.exit_code == 0, table.output
    assert "tokens per solved item" in table.stdout
    assert "reasoning never ended (%)" in table.stdout


def test_generated_lines_score_as_the_evaluation_does(
    evaluated: tuple[Path, Any], model: Path, task: str, tmp_path: Path
) -> None:
    folder, _ = evaluated
    loaded = tasks.load(task)
    from dskd.modeling.loading import load_tokenizer

    prompts = prompts_of_task(loaded, load_tokenizer(model), max_reasoning_tokens=NEW_TOKENS - 16)
    rows = generate(model, prompts, protocol=GREEDY, engine="transformers")
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    samples, summary = score_predictions(loaded, path)
    kept = ("scores", "outcome", "reasoning", "reasoning_ended", "reasoning_tokens", "generated_tokens")
    for mine, theirs in zip(samples, samples_of(folder), strict=True):
        assert {key: mine.get(key) for key in kept} == {key: theirs.get(key) for key in kept}
    record = read_record(folder / "result.json")
    assert record.reasoning is not None
    assert summary["reasoning"] == record.reasoning.model_dump()


def write_lines(path: Path, outputs: list[str], **more: Any) -> Path:
    docs = tasks.load("small_math").docs()
    rows = [{"id": doc["id"], "output": output, **more} for doc, output in zip(docs, outputs, strict=True)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def gold() -> list[str]:
    task = tasks.load("small_math")
    return [task.reference(doc) for doc in task.docs()]


def score(path: Path, *arguments: str) -> Any:
    command = ["score", "--task", "small_math", "--predictions", str(path), *arguments]
    return CliRunner().invoke(main, command)


def test_reasoning_in_a_file_of_another_s_is_cut_on_request_and_pointed_out_otherwise(
    gold: list[str], tmp_path: Path
) -> None:
    path = write_lines(tmp_path / "lines.jsonl", [f"<think>Question: 1?\n#### 7\n</think>\n{each}" for each in gold])
    uncut = score(path, "--json")
    assert json.loads(uncut.stdout)["metrics"]["numeric"]["value"] == 0
    assert f"{len(gold)} of {len(gold)} outputs hold </think>" in uncut.stderr
    assert 'fix: --reasoning-markers "<think>" "</think>"' in uncut.stderr
    cut = score(path, "--json", "--reasoning-markers", "<think>", "</think>")
    assert json.loads(cut.stdout)["metrics"]["numeric"]["value"] == 100
    assert json.loads(cut.stdout)["reasoning"]["samples"] == len(gold)
    assert json.loads(cut.stdout)["reasoning"]["tokens"] is None  # the file does not say
    assert cut.stderr == ""


def test_a_prompt_that_opened_reasoning_makes_an_output_without_an_end_no_answer(
    gold: list[str], tmp_path: Path
) -> None:
    outputs = [f"Six.</think>\n{each}" for each in gold[:-1]] + [gold[-1]]
    path = write_lines(tmp_path / "lines.jsonl", outputs)
    markers = ("--reasoning-markers", "<think>", "</think>")
    right = json.loads(score(path, "--json", *markers).stdout)["n"]["invalid"]
    opened = json.loads(score(path, "--json", *markers, "--prompt-opens-reasoning").stdout)
    assert right == 0
    assert opened["n"]["invalid"] == 1
    assert opened["reasoning"]["never_ended"] == 1


def test_options_of_reasoning_that_do_not_fit(gold: list[str], tmp_path: Path) -> None:
    path = write_lines(tmp_path / "lines.jsonl", gold)
    alone = score(path, "--prompt-opens-reasoning")
    assert alone.exit_code == 2
    assert "add --reasoning-markers OPENING CLOSING" in alone.stderr
    assert score(path, "--reasoning-markers", "", "</think>").exit_code == 2
    odd = write_lines(tmp_path / "odd.jsonl", gold, reasoning="x", reasoning_ended="no")
    with pytest.raises(InputError, match=r'odd.jsonl:1: key "reasoning_ended" is "no"; fix: make it true or false'):
        score_predictions(tasks.load("small_math"), odd)


@pytest.mark.real
def test_gsm8k_with_reasoning_before_the_answer(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    task = tasks.load("gsm8k")
    # Reasoning that ends in another number, asks a question of its own and never stops: none of it may count.
    outputs = [
        f"<think>Question: how many?\n#### 1{n}5\n\n</think>\n{task.reference(d)}" for n, d in enumerate(task.docs())
    ]
    outputs[0] = f"<think>{task.reference(task.docs()[0])}"
    rows = [{"id": doc["id"], "output": output} for doc, output in zip(task.docs(), outputs, strict=True)]
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    samples, summary = score_predictions(task, path, reasoning=THINK)
    assert [sample["scores"]["numeric"] for sample in samples] == [0.0] + [100.0] * (len(rows) - 1)
    assert summary["reasoning"]["never_ended"] == 1
    assert summary["n"]["invalid"] == 1


def test_what_no_sample_reasons_about_has_no_summary_of_it() -> None:
    headline = Metric("numeric")
    sample = {"scores": {"numeric": 100.0}, "generated_tokens": 4, "finish_reason": "stop"}
    assert reasoning_summary(headline, [sample]) is None
    # Thinking is off, and the block empty.
    assert reasoning_summary(headline, [{**sample, "reasoning": "", "reasoning_ended": True}]) is None
    thought = {**sample, "reasoning": "Six.", "reasoning_ended": True, "reasoning_tokens": 3}
    assert reasoning_summary(Metric("numeric", kind="continuous"), [thought]) == {
        "samples": 1,
        "never_ended": 0,
        "never_ended_share": 0.0,
        "reasoning_cut": 0,
        "reasoning_cut_share": 0.0,
        "reasoning_closed": 0,
        "answers_cut": 0,
        "answers_cut_share": 0.0,
        "tokens": 4,
        "reasoning_tokens": 3,
        "answer_tokens": 1,
        "tokens_per_solved": None,
    }


def test_a_metric_that_should_be_low_keeps_what_the_task_gives_for_nothing(task: str) -> None:
    loaded = tasks.load(task)
    (wrong,) = score_answers(loaded, loaded.docs(1), [""], [False], allow_code_execution=False)
    assert wrong.scores == {"starts": 0.0, "wrong": 0.0}


THINKING = (
    "{% for m in messages %}{{ m.role }}: {% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% if enable_thinking is defined %}<think>\n"
    "{% if not enable_thinking %}\n</think>\n\n{% endif %}{% endif %}{% endif %}"
)


@pytest.mark.parametrize(
    "settings",
    [{}, {"arguments": {"style": "short"}}, {"arguments": {"enable_thinking": True}, "reasoning": "train"}],
)
def test_a_record_says_of_a_template_what_its_tokenizer_does(settings: dict[str, Any]) -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = THINKING
    set_template(tokenizer, Template(kind="chat", **settings))
    described = describe(tokenizer)
    assert RecordTemplate.model_validate(described).model_dump(mode="json") == described


def test_a_record_and_a_protocol_without_reasoning_are_written_as_before() -> None:
    assert "max_reasoning_tokens" not in GREEDY.model_dump_json()
    assert all("max_reasoning_tokens" not in protocol.settings for protocol in PROTOCOLS.values())
    assert PROTOCOLS["minillm-sampling"].with_reasoning(9).settings["max_reasoning_tokens"] == 9
    empty = {"teacher": "t", "student": None, "method": "teacher", "seed": None}
    environment = {"versions": {}, "python": "3", "platform": "p", "device": "cpu", "threads": 1}
    identity = {"hash": "0" * 64, "parts": {}}
    record = Record.model_validate({"cell": empty, "identity": identity, "status": "done", "environment": environment})
    assert "reasoning" not in record.model_dump(mode="json")
    assert "reasoning" not in json.loads(record.model_dump_json())
