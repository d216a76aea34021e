"""A base and an instruct model have one vocabulary and two ends of a text: told when planning, before a teacher has run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from dskd.tokenization.tokenizer_files import role_tokens
from harness.planning import preflight
from harness.planning.plan import Plan, make_plan
from helpers.llama_folders import change_json, write_llama
from helpers.tiny_tokenizers import byte_level

ENDS = {"base": "<|end|>", "instruct": "<|im_end|>"}
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.fixture
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base` and `instruct`: the same tokens, a chat template in both, and an end of their own."""
    folder = tmp_path_factory.mktemp("models")
    for name, end in ENDS.items():
        tokenizer = byte_level()
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.eos_token, tokenizer.chat_template = end, TEMPLATE
        write_llama(folder / name, tokenizer=tokenizer)
    return folder


@pytest.fixture
def turn(models: Path) -> int:
    """The id of a turn's end."""
    return role_tokens(models / "instruct")["eos"][1]


@pytest.fixture
def plan_of(models: Path, tmp_path: Path, write_matrix: Callable[[Any], Path]) -> Callable[..., Plan]:
    def plan(*methods: str, teacher: str = "instruct", student: str = "base", template: Any = None) -> Plan:
        key = "prompt" if template is None else "instruction"
        rows = [{key: f"What is {k}?", "output": f" {k}"} for k in range(4)]
        (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        asked = {} if template is None else {"template": template}
        content = {
            "schema_version": 1,
            "name": "ends",
            "data": {"sums": {"file": str(tmp_path / "data.jsonl")}},
            "models": {
                "teacher": {"path": str(models / teacher), **asked},
                "student": {"path": str(models / student), **asked},
            },
            "pairs": [{"teacher": "teacher", "student": "student", "methods": [*methods]}],
            "training": {"data": "sums", "steps": 2},
            "seeds": [1],
            "tasks": {},
        }
        return make_plan(str(write_matrix(content)), output_dir=tmp_path / "run")

    return plan


def test_a_method_for_one_vocabulary_is_refused_with_both_ends_and_the_fix(
    plan_of: Callable[..., Plan], turn: int
) -> None:
    with pytest.raises(InputError) as caught:
        plan_of("sft", "kd")
    message = str(caught.value)
    assert "matrix.yaml: pairs.0.methods: kd needs one vocabulary, used alike; teacher 'teacher'" in message
    assert f"the teacher ends a text with '<|im_end|>' (id {turn}) and the student with '<|end|>' (id 0)" in message
    assert (
        "; fix: give both models template: chat, in which both end with a turn's end, or use a method for any two: "
        in message
    )
    assert "\n" not in message


def test_other_methods_are_warned_of_both_ends(
    plan_of: Callable[..., Plan], caplog: pytest.LogCaptureFixture, turn: int
) -> None:
    with caplog.at_level(logging.WARNING, logger="harness"):
        plan = plan_of("dskd-v2-eta")
        preflight.check(plan, allow_code_execution=False)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"'<|im_end|>' (id {turn})" in warning
    assert "'<|end|>' (id 0)" in warning
    assert "matrix.yaml: pairs.0: " in warning


@pytest.mark.parametrize("pair", [("base", "base"), ("instruct", "instruct")])
def test_one_end_is_no_mistake(
    plan_of: Callable[..., Plan], pair: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    plan = plan_of("kd", "dskd-v2-eta", teacher=pair[0], student=pair[1])
    preflight.check(plan, allow_code_execution=False)
    assert not caplog.records


def test_in_a_chat_template_both_end_with_the_turn(
    plan_of: Callable[..., Plan], caplog: pytest.LogCaptureFixture
) -> None:
    plan = plan_of("kd", "dskd-v2-eta", template="chat")
    preflight.check(plan, allow_code_execution=False)
    assert not caplog.records


def test_alpaca_changes_no_end(plan_of: Callable[..., Plan]) -> None:
    with pytest.raises(InputError, match=r"the teacher ends a text with '<\|im_end\|>'"):
        plan_of("kd", template="alpaca")


def test_two_begin_tokens_are_found_too(models: Path, plan_of: Callable[..., Plan], tmp_path: Path) -> None:
    change_json(models / "instruct/tokenizer_config.json", bos_token="<|im_start|>")
    change_json(models / "base/tokenizer_config.json", bos_token="<|end|>", eos_token="<|im_end|>")
    with pytest.raises(
        InputError, match=r"the teacher begins a text with '<\|im_start\|>' \(id \d+\) and the student with"
    ):
        plan_of("kd")


def test_tokens_that_one_tokenizer_alone_calls_special_are_found_before_anything_runs(
    models: Path, plan_of: Callable[..., Plan], tmp_path: Path
) -> None:
    file = models / "base/tokenizer.json"
    content = json.loads(file.read_text())
    for token in content["added_tokens"]:
        token["special"] = token["special"] and token["content"] != "<|im_start|>"
    file.write_text(json.dumps(content))
    change_json(models / "base/tokenizer_config.json", bos_token=None, eos_token="<|im_end|>", extra_special_tokens=[])
    change_json(models / "instruct/tokenizer_config.json", bos_token=None)
    plan = plan_of("kd")
    with pytest.raises(InputError, match=r"pairs\.0\.methods: kd needs one vocabulary, but .* have different ones"):
        preflight.check(plan, allow_code_execution=False)


@pytest.mark.parametrize("written", ["<|end|>", {"content": "<|end|>", "special": True}])
def test_the_ends_are_read_from_the_files_as_tokenizers_write_them(models: Path, tmp_path: Path, written: Any) -> None:
    folder = tmp_path / "tokenizer"
    byte_level().save_pretrained(folder)
    change_json(folder / "tokenizer_config.json", eos_token=written)
    assert role_tokens(folder) == {"eos": ("<|end|>", 0)}
    change_json(folder / "tokenizer_config.json", eos_token=None)
    assert role_tokens(folder) == {}
