"""`harness score` on the samples of an evaluation: the same scores as in its record, however the model was asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.prompt_templates import Template
from harness import tasks
from harness.cli import main
from harness.engines._types import Completion
from harness.evaluation.evaluate import EvaluationOptions, evaluate
from harness.evaluation.summary import summarise
from harness.runs.store import write_jsonl_atomic
from harness.smallworld.tokenizers import write_byte_level
from harness.steps.create_model import give_template

# Those that run programs, of which each test set has at least a hundred, take their time.
TASKS = [
    "small_instruct",
    "small_math",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("small_code", "gsm8k", "humaneval", "mbpp")),
]


class Speaker:
    """An engine with answers of each kind in turn: right, fenced, right with more after a stop string, cut, none."""

    name = "speaker"
    on_finished = None

    def __init__(self, task: Any) -> None:
        self.task = task

    def complete(self, prompts: Any, sampling: Any, seeds: Any) -> Any:
        docs = self.task.docs(len(prompts))
        texts = [self.say(self.task, doc, number) for number, doc in enumerate(docs)]
        reasons = ["length" if number % 5 == 3 else "stop" for number in range(len(texts))]
        self.on_finished(len(texts))
        return [Completion(text, reason, [1], [1]) for text, reason in zip(texts, reasons, strict=True)]

    @staticmethod
    def say(task: Any, doc: dict[str, str], number: int) -> str:
        gold = task.reference(doc)
        whole = doc["prompt"] + gold if task.name in ("humaneval", "small_code") else gold
        after = (task.stop or ["\n\n"])[0]
        return [gold, f"Here:\n```python\n{whole}\n```\nSo.", f"{gold}{after} 99", gold[: len(gold) // 2], ""][
            number % 5
        ]

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two folders of one untrained model, one to be asked in Alpaca's template; the engine above answers for them."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folders = {}
    for kind in ("completion", "chat"):
        folder = folders[kind] = tmp_path_factory.mktemp(kind)
        write_byte_level(folder, ["the quick brown fox jumps over the lazy dog"] * 3)
        size = len(load_tokenizer(folder))
        GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=8, n_layer=1, n_head=1)).save_pretrained(folder)
    give_template(Template(kind="alpaca"), folders["chat"])
    return folders


def scored(name: str, path: Path, *more: str) -> dict[str, Any]:
    arguments = ["score", "--task", name, "--predictions", str(path), "--allow-code-execution", "--json", *more]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("asked", ["completion", "chat"])
@pytest.mark.parametrize("name", TASKS)
def test_the_samples_of_an_evaluation_score_as_in_its_record(
    name: str,
    asked: str,
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if not name.startswith("small_"):
        monkeypatch.setenv("HARNESS_DATA", str(request.getfixturevalue("real_data")))
    monkeypatch.setattr(
        sys.modules["harness.evaluation.evaluate"], "open_engine", lambda *_, **__: Speaker(tasks.load(name))
    )
    (done,) = evaluate(models[asked], {name: EvaluationOptions()}, allow_code_execution=True)
    record = summarise(tasks.load(name), done.samples)
    headline = tasks.load(name).metrics[0].name
    assert (
        10 < record["metrics"][headline]["value"] < 90
    )  # neither all right nor all wrong, or the rules would not show
    path = tmp_path / "samples.jsonl"
    write_jsonl_atomic(path, done.samples)
    result = scored(name, path, "--response-format", asked)
    assert result["answers"] == asked
    assert result["n"] == record["n"]
    for metric, value in result["metrics"].items():
        assert value == {key: record["metrics"][metric][key] for key in value}


@pytest.mark.parametrize("name", TASKS[:3])
def test_several_samples_of_an_id_are_averaged_in_every_task(name: str, tmp_path: Path) -> None:
    task = tasks.load(name)
    path = tmp_path / "answers.jsonl"
    lines = [{"id": doc["id"], "output": output} for doc in task.docs() for output in (task.reference(doc), "")]
    write_jsonl_atomic(path, lines)
    result = scored(name, path)
    assert {metric["value"] for metric in result["metrics"].values() if metric["value"] is not None} == {50.0}
    assert (result["n"]["total"], result["metrics"][task.metrics[0].name]["n"]) == (len(lines), len(lines) // 2)


def test_the_file_may_say_its_format_and_lines_must_agree(tmp_path: Path) -> None:
    task = tasks.load("small_math")
    path = tmp_path / "answers.jsonl"
    lines = [{"id": doc["id"], "output": task.reference(doc), "response_format": "chat"} for doc in task.docs()]
    write_jsonl_atomic(path, lines)
    assert scored("small_math", path)["answers"] == "chat"
    assert scored("small_math", path, "--answers", "completion")["answers"] == "completion"  # the option's old name
    write_jsonl_atomic(path, [*lines[1:], {**lines[0], "response_format": "completion"}])
    result = CliRunner().invoke(main, ["score", "--task", "small_math", "--predictions", str(path)])
    assert result.exit_code == 2
    assert '"response_format" is chat and completion; fix: score one format at a time' in result.stderr


def test_the_rule_decides_whether_a_stop_string_ends_an_answer(tmp_path: Path) -> None:
    task = tasks.load("small_math")
    path = tmp_path / "answers.jsonl"
    more = f"{task.stop[0]} and so on\n#### 99999"
    write_jsonl_atomic(path, [{"id": doc["id"], "output": task.reference(doc) + more} for doc in task.docs()])
    assert scored("small_math", path)["metrics"]["numeric"]["value"] == 100.0
    assert scored("small_math", path, "--response-format", "chat")["metrics"]["numeric"]["value"] == 0.0
