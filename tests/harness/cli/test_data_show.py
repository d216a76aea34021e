"""`harness data show` as a user calls it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness.cli import main
from helpers.tiny_tokenizers import byte_level, sentencepiece

CHAT = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
ASKED, ANSWER = "The river is green.", "The quick brown fox"
ENDS = {"student": "</s>", "teacher": "<|end|>"}
TALK = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWER}]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of two tokenizers, with a chat template each."""
    folder = tmp_path_factory.mktemp("models")
    for name, tokenizer in (("teacher", byte_level()), ("student", sentencepiece())):
        tokenizer.chat_template = CHAT
        tokenizer.save_pretrained(folder / name)
    return folder


def show(*arguments: Any) -> Any:
    return CliRunner().invoke(main, ["data", "show", *map(str, arguments)])


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_it_counts_what_there_is_and_what_is_left_out(tmp_path: Path) -> None:
    thinking = {"role": "assistant", "content": "<think>hm</think>yes"}
    rows = [
        {"id": 1, "messages": [{"role": "system", "content": "s"}, *TALK, *TALK], "tools": [{"name": "f"}]},
        {"id": 2, "messages": [TALK[0], {**TALK[1], "weight": 0}, TALK[0], thinking]},
        *({"id": k, "messages": TALK[:1]} for k in range(5)),
        {"instruction": "a", "output": "b"},
    ]
    path = written(tmp_path / "rows.jsonl", *rows)
    result = show(path, "-n", 0)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"source        {path}",
        "columns       id (in 7), messages (in 7), tools (in 1), instruction (in 1), output (in 1)",
        "shape         messages (2), instruction/output (1)",
        "rows          8, of which 3 can be used",
        "responses     5, of which 4 are trained on",
        "with system   1 rows",
        "with tools    1 rows",
        "with reasoning 1 rows",
        f"left out      5: has no message of the assistant ({path}:3, {path}:4, {path}:5)",
    ]
    found = json.loads(show(path, "--json", "-n", 1).stdout)
    assert (found["rows"], found["usable"], found["trained_turns"]) == (8, 3, 4)
    assert found["left_out"][0]["rows"] == 5
    assert [each["place"] for each in found["first"]] == [f"{path}:1"]
    assert json.loads(show(path, "--json", "-n", 1, "--train-on", "last").stdout)["trained_turns"] == 3


def test_each_model_s_text_is_what_it_is_trained_on_with_labels_marked(models: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", {"prompt": ASKED, "output": ANSWER})
    asked = (path, "--student", models / "student", "--teacher", models / "teacher")
    text = show(*asked).stdout
    for role, end in ENDS.items():
        seen = re.search(rf"as the {role} sees it: (\d+) tokens, (\d+) of them labels\n(.*)", text)
        assert seen is not None
        # SentencePiece writes a space in front of a text, and this one begins it with a token.
        assert seen[3].removeprefix("<s>").strip() == f"{ASKED}⟦{ANSWER}{end}⟧"
        assert int(seen[2]) < int(seen[1])
    (example,) = json.loads(show(*asked, "--json").stdout)["first"]
    for role, end in ENDS.items():
        ((prompt, labels),) = example["models"][role]
        assert (prompt["labels"], labels["labels"], labels["text"]) == (False, True, ANSWER + end)


def test_every_turn_of_a_conversation_is_shown_in_the_model_s_own_template(models: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", {"messages": [*TALK, *TALK]})
    text = show(path, "--template", "chat", "--student", models / "student", "--teacher", models / "teacher").stdout
    for end in ENDS.values():
        turn = f"<|user|>{ASKED}{end}<|assistant|>⟦{ANSWER}{end}⟧"
        # After a special token SentencePiece writes a space that is not in the text.
        assert text.replace("> ", ">").replace("⟧ ", "⟧").count(turn + turn) == 1, text
    last = show(path, "--template", "chat", "--student", models / "student", "--train-on", "last").stdout
    assert last.count("⟦") == 1
    assert "assistant (not trained on): " in last


def test_a_turn_that_a_template_does_not_take_is_said_with_the_reason(models: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", {"messages": TALK, "tools": [{"name": "weather"}]})
    text = show(path, "--template", "chat", "--student", models / "student").stdout
    assert "left out, 1 of its turns: template changes (its chat template leaves out the tools)" in text


def test_what_the_models_do_not_take_is_one_line(models: Path, tmp_path: Path) -> None:
    talk = written(tmp_path / "talk.jsonl", {"messages": TALK})
    other = written(tmp_path / "other.jsonl", {"problem": "a", "solution": "b"})
    for arguments, message in (
        ((talk, "--student", models / "student"), "holds a conversation, and the models have no template"),
        ((talk, "--template", "alpaca"), "the models have the template alpaca"),
        ((other,), 'the row has problem, solution; fix: name the columns, prompt: "{problem}", output: "{solution}"'),
        ((other, "--column", "outputs={problem}"), "--column outputs: no such key; did you mean 'output'?"),
        ((other, "--column", "prompt={problem}"), "--column: these keys go together"),
        ((other, "--column", "prompt=problem", "--column", "output={solution}"), "--column prompt: names no column"),
        ((other, "--shape", "alpaca"), "Invalid value for '--shape'"),
        ((tmp_path / "absent.jsonl",), "absent.jsonl: no such file"),
        ((talk, "--student", tmp_path / "absent"), "--student"),
    ):
        result = show(*arguments)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.stderr
        assert message in result.stderr
    named = show(other, "--column", "instruction={problem}", "--column", "output={solution}")
    assert "shape         columns by template (1)" in named.stdout


def test_text_of_the_data_cannot_move_the_cursor_or_flood_the_screen(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", {"prompt": "\x1b[31mred\r", "output": "x" * 100_000, "\x1b[2Jname": 1})
    text = show(path).stdout
    assert "\x1b" not in text
    assert "\r" not in text
    assert "\\x1b[31mred\\r" in text
    assert "98,800 characters" in text
    assert len(text) < 5000


def test_standard_input_is_a_source(tmp_path: Path) -> None:
    given = json.dumps({"prompt": "a", "output": "b"}) + "\n"
    result = CliRunner().invoke(main, ["data", "show", "-"], input=given)
    assert "rows          1, of which 1 can be used" in result.stdout, result.stderr
    assert "--- example 1 (-:1)" in result.stdout
