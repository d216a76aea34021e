"""Training sets of a user's own, from planning to the file that is prepared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dskd.data import DataOptions, Example, iter_examples
from dskd.data.options import takes_of
from dskd.errors import InputError
from dskd.tokenization.prompt_templates import Template
from harness.steps.data import FileExamples, read_examples, said


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_text_and_numbers_go_into_templates_and_other_columns_do_not_matter(tmp_path: Path) -> None:
    path = written(
        tmp_path / "rows.jsonl", {"question": "2 + 2", "answer": 4, "steps": ["x"]}, {"question": "", "answer": 0.5}
    )
    options = DataOptions(prompt="{{Q}}: {question}", output=" {answer}")
    assert list(iter_examples(path, "text", options)) == [Example("{Q}: 2 + 2", " 4"), Example("{Q}: ", " 0.5")]


@pytest.mark.parametrize("value", [None, ["x"], {"a": "x"}, True])
def test_what_is_neither_text_nor_a_number_is_no_text(tmp_path: Path, value: Any) -> None:
    path = written(tmp_path / "rows.jsonl", {"question": "q", "answer": "a"}, {"question": "q", "answer": value})
    with pytest.raises(InputError, match=r"rows\.jsonl:2: column 'answer', which the template names, is neither"):
        list(iter_examples(path, "text", DataOptions(prompt="{question}", output="{answer}")))


def test_a_file_that_is_read_as_it_is_is_not_copied(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", {"prompt": "p", "output": "o"})
    examples = FileExamples(file=path, sha256="")
    assert read_examples(examples, tmp_path, tmp_path / "job", "text", None)[0] == path
    assert not (tmp_path / "job").exists()


def test_what_a_file_says_in_other_words_is_written_once_in_ours(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", {"q": "a?", "a": "b"}, {"q": "c?", "a": "d"})
    examples = FileExamples(file=path, sha256="", **said(DataOptions(instruction="{q}", output="{a}")))
    made, left_out = read_examples(examples, tmp_path, tmp_path / "job", "chat", 1)
    assert made == tmp_path / "job" / "examples.jsonl"
    assert [json.loads(line) for line in made.read_text().splitlines()] == [
        {"instruction": "a?", "input": "", "output": "b"}
    ]
    assert left_out.total == 0


def test_a_conversation_without_an_answer_is_left_out_and_an_empty_output_is_a_mistake(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path = written(tmp_path / "rows.jsonl", {"messages": turns}, {"messages": turns[:1]}, {"messages": []})
    made, left_out = read_examples(FileExamples(file=path, sha256=""), tmp_path, tmp_path / "job", "chat", None)
    assert len(made.read_text().splitlines()) == 1
    assert left_out.counts == {"has no message of the assistant": 1, "the messages are no list, or an empty one": 1}
    assert left_out.places["has no message of the assistant"] == [f"{path}:2"]
    path = written(tmp_path / "rows.jsonl", {"prompt": "a", "output": "b"}, {"prompt": "a", "output": ""})
    with pytest.raises(InputError, match=r"rows\.jsonl:2: output is empty"):
        read_examples(FileExamples(file=path, sha256=""), tmp_path, tmp_path / "job", "text", None)


def test_what_is_said_is_read_back_and_the_rest_is_no_part_of_an_identity() -> None:
    options = DataOptions(messages="dialog", system="{s}", train_on="last")
    examples = FileExamples(file=Path("f"), sha256="1", **said(options))
    assert examples.options == options
    assert FileExamples(file=Path("f"), sha256="1").identity_parts() == {"sha256": "1", "prompt": None, "output": None}
    assert examples.identity_parts()["train_on"] == "last"


def test_a_pair_takes_what_both_of_its_models_take() -> None:
    alpaca, chat = Template(kind="alpaca"), Template(kind="chat")
    assert [takes_of(), takes_of(None, None), takes_of(chat, chat), takes_of(chat, alpaca)] == [
        "text",
        "text",
        "chat",
        "alpaca",
    ]
    assert takes_of(alpaca, None) == "alpaca"


def test_the_size_of_a_training_set_is_counted_row_by_row(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "four"}, {"role": "assistant", "content": "sixsix"}]
    path = written(tmp_path / "rows.jsonl", {"messages": turns}, {"messages": [*turns, *turns]})
    size = FileExamples(file=path, sha256="").size
    assert (size.examples, size.prompt_bytes, size.response_bytes) == (2, 6.0, 9.0)
