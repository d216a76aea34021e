"""How models are trained to be asked, and how tasks ask them, is compared at planning time."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness.planning.plan import make_plan
from harness.runs.records import read_record

Content = dict[str, Any]
Planned = Callable[[Content], Any]


@pytest.fixture
def planned(write_matrix: Callable[[Any], Path], tmp_path: Path) -> Planned:
    return lambda content: make_plan(str(write_matrix(content)), output_dir=tmp_path / "out")


def with_templates(tiny: Content, *names: str) -> Content:
    for name in names or tiny["models"]:
        tiny["models"][name]["template"] = "alpaca"
    return tiny


def rows(path: Path, **columns: str) -> str:
    path.write_text("".join(json.dumps({k: v.format(n) for k, v in columns.items()}) + "\n" for n in range(3)))
    return str(path)


def test_a_pair_has_templates_on_both_sides_or_on_neither(tiny: Content, planned: Planned) -> None:
    with pytest.raises(InputError, match=r"models\.same\.template: teacher has a prompt template and same has none"):
        planned(with_templates(tiny, "teacher"))
    assert planned(with_templates(tiny)).to_run


def test_data_of_whole_prompts_is_not_for_a_template(tiny: Content, planned: Planned, tmp_path: Path) -> None:
    file = rows(tmp_path / "rows.jsonl", question="q {}", answer="a")
    tiny["data"]["student"] = {"file": file, "prompt": "Question: {question}\nAnswer:", "output": " {answer}"}
    assert planned(tiny).to_run
    with pytest.raises(InputError, match=r"data\.student\.prompt: makes whole prompts, but models\.\w+ has a template"):
        planned(with_templates(tiny))
    tiny["data"]["student"] = {"file": file, "instruction": "{question}", "output": "{answer}"}
    assert planned(tiny).to_run
    for model in tiny["models"].values():
        del model["template"]
    with pytest.raises(
        InputError, match=r"data\.student\.instruction: makes instructions, but models\.\w+ has no template"
    ):
        planned(tiny)


@pytest.mark.parametrize("key", ["prompt", "instruction"])
def test_an_output_alone_goes_with_nothing(tiny: Content, planned: Planned, tmp_path: Path, key: str) -> None:
    tiny["data"]["student"] = {"file": rows(tmp_path / "rows.jsonl", a="a"), key: "{a}"}
    with pytest.raises(InputError, match="these keys go together"):
        planned(tiny)


def test_a_task_that_asks_in_another_way_than_the_training_data_is_refused(
    tiny: Content, planned: Planned, tmp_path: Path
) -> None:
    alpaca = "### Instruction:\nDo {}.\n\n### Response:\n"
    tiny["data"]["student"] = {"file": rows(tmp_path / "rows.jsonl", prompt=alpaca, output="done")}
    with pytest.raises(
        InputError, match=r"tasks\.small_math: its prompts end with .*Answer:', but teacher is trained on data"
    ):
        planned(tiny)
    tiny["tasks"] = {"small_instruct": {"limit": 2}}
    assert planned(tiny).to_run
    tiny["tasks"] = {"small_math": {"limit": 2, "other_prompts": True}}
    assert planned(tiny).to_run
    # Without the newline at its end it is another prompt than the task's, though nobody would see it.
    tiny["data"]["student"] = {"file": rows(tmp_path / "rows.jsonl", prompt=alpaca.rstrip(), output="done")}
    tiny["tasks"] = {"small_instruct": {"limit": 2}}
    with pytest.raises(InputError, match=r"tasks\.small_instruct: its prompts end with"):
        planned(tiny)


def test_a_chat_needs_the_tokenizer_s_own_template(tiny: Content, planned: Planned, tmp_path: Path) -> None:
    from dskd.modeling.loading import load_tokenizer
    from harness.smallworld.tokenizers import write_byte_level

    for model in tiny["models"].values():
        model["template"] = "chat"
    with pytest.raises(InputError, match=r"models\.teacher\.template: chat, but its tokenizer has no chat template"):
        planned(tiny)
    write_byte_level(tmp_path / "tokenizer", ["some text to learn from, 1234567890"] * 5)
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    for model in tiny["models"].values():
        model["tokenizer"] = {"path": str(tmp_path / "tokenizer")}
    assert planned(tiny).to_run


def test_an_unknown_template_names_those_that_there_are(tiny: Content, planned: Planned) -> None:
    tiny["models"]["same"]["template"] = "vicuna"
    with pytest.raises(InputError, match=r"models\.same\.config\.template\.kind|models\.same\.template\.kind"):
        planned(tiny)


@pytest.mark.slow  # a whole run; the parts of it are tested one by one
def test_a_template_is_in_the_prompts_the_student_s_folder_and_the_record(
    tiny: Content,
    harness: Callable[..., subprocess.CompletedProcess[str]],
    write_matrix: Callable[[Any], Path],
    tmp_path: Path,
) -> None:
    from dskd.modeling.loading import load_tokenizer
    from dskd.tokenization.prompt_templates import Template, template_of

    with_templates(tiny)
    tiny["pairs"] = [{"teacher": "teacher", "student": "cross", "methods": ["dskd-v2-eta", "seqkd"]}]
    tiny["methods"] = {"seqkd": {"max_new_tokens": 3, "answer_temperature": 3.0}}
    run = harness(
        "run", "--matrix", write_matrix(tiny), "--output-dir", tmp_path / "out", "--only", "method=dskd-v2-eta"
    )
    assert run.returncode == 0, run.stderr
    cell = tmp_path / "out/cells/teacher__cross/dskd-v2-eta/seed1"
    assert template_of(load_tokenizer(cell / "train/model")) == Template(kind="alpaca")
    record = read_record(cell / "eval/small_math@v2/result.json")
    assert record.template is not None
    assert record.template.kind == "alpaca"
    samples = [json.loads(line) for line in (cell / "eval/small_math@v2/samples.jsonl").open()]
    assert all(sample["prompt"].endswith("####.\n\n### Response:\n") for sample in samples)
