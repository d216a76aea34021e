"""Which answers form a pair, and which prompts they may be of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness import tasks
from harness.judge.pairs import Pair
from harness.judge.sources import (
    Side,
    make_pairs,
    prompts_of_answers,
    prompts_of_task,
    prompts_of_texts,
    read_side,
    references,
)

PROMPTS = {"0": "Name a colour.", "1": "Name a fruit."}


def side(folder: Path, name: str, rows: list[dict[str, Any]]) -> Side:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_side(path, name)


def rows(*outputs: str, prompts: bool = False) -> list[dict[str, Any]]:
    """Answers to the prompts above, in turns."""
    ids = [str(n % 2) for n in range(len(outputs))]
    return [
        {"id": each, "output": output, **({"prompt": PROMPTS[each]} if prompts else {})}
        for each, output in zip(ids, outputs, strict=True)
    ]


def test_answers_are_paired_by_id_in_the_order_of_the_prompts(tmp_path: Path) -> None:
    a, b = side(tmp_path, "a", rows(" Red.\n", "Fig.")), side(tmp_path, "b", rows("Blue.", "Plum.")[::-1])
    pairs = make_pairs(a, b, prompts_of_texts(PROMPTS))
    assert pairs == [Pair("0", 0, "Name a colour.", "Red.", "Blue."), Pair("1", 0, "Name a fruit.", "Fig.", "Plum.")]
    assert make_pairs(a, b, prompts_of_texts(PROMPTS), limit=1) == pairs[:1]


def test_samples_are_paired_in_their_order_and_other_numbers_refused(tmp_path: Path) -> None:
    a = side(tmp_path, "a", rows("a0", "a1", "a2", "a3"))
    b = side(tmp_path, "b", rows("b0", "b1", "b2", "b3", "b4", "b5"))
    asked = prompts_of_texts(PROMPTS)
    with pytest.raises(InputError, match="2 answers to '0', but 3 in b; fix: --samples"):
        make_pairs(a, b, asked)
    pairs = make_pairs(a, b, asked, samples=2)
    assert [(pair.id, pair.index, pair.a, pair.b) for pair in pairs] == [
        ("0", 0, "a0", "b0"), ("0", 1, "a2", "b2"), ("1", 0, "a1", "b1"), ("1", 1, "a3", "b3"),
    ]  # fmt: skip
    with pytest.raises(InputError, match="--samples"):
        make_pairs(a, b, asked, samples=3)


def test_prompts_of_the_lines_must_be_the_same(tmp_path: Path) -> None:
    a, b = side(tmp_path, "a", rows("x", "y", prompts=True)), side(tmp_path, "b", rows("z", "w", prompts=True))
    pairs = make_pairs(a, b, prompts_of_answers(a, b))
    assert [pair.question for pair in pairs] == list(PROMPTS.values())
    changed = rows("z", "w", prompts=True)
    changed[1]["prompt"] += " Please."
    c = side(tmp_path, "c", changed)
    with pytest.raises(InputError, match=r"c.jsonl:2: its prompt is not the one that is judged \('1'\)"):
        make_pairs(a, c, prompts_of_answers(a, c))
    with pytest.raises(InputError, match="its prompt is not the one"):
        make_pairs(a, c, prompts_of_texts(PROMPTS))


@pytest.mark.parametrize("task_name", ["small_instruct", "small_math", "small_code"])
def test_a_task_s_prompts_are_recognised_in_its_own_form_and_in_a_template(tmp_path: Path, task_name: str) -> None:
    task = tasks.load(task_name)
    asked, docs = prompts_of_task(task), task.docs()
    forms = [[task.prompt(doc) for doc in docs]]
    if task.supports_chat:
        forms.append(["<|user|>\n" + "\n\n".join(task.instruction(doc)) + "<|assistant|>" for doc in docs])
    for number, prompts in enumerate(forms):
        lines = [{"id": doc["id"], "output": "x", "prompt": each} for doc, each in zip(docs, prompts, strict=True)]
        a = side(tmp_path, str(number), lines)
        assert len(make_pairs(a, references(task), asked)) == len(docs)
    shuffled = [
        {"id": doc["id"], "output": "x", "prompt": each}
        for doc, each in zip(docs, prompts[1:] + prompts[:1], strict=True)
    ]
    with pytest.raises(InputError, match="its prompt is not the one"):
        make_pairs(side(tmp_path, "shuffled", shuffled), references(task), asked)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"id": 0, "output": "x"}, "is missing or no text"),
        ({"id": "0"}, "is missing"),
        ({"id": "0", "output": "x", "prompt": 3}, "prompt"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=rf"a.jsonl:1: .*{words}"):
        side(tmp_path, "a", [row])


def test_half_a_pair_and_control_characters_in_answers_are_read(tmp_path: Path) -> None:
    hostile = "\ud800 \x00 \u2028 \x1b[2J"
    a = side(tmp_path, "a", rows(hostile, "y"))
    assert make_pairs(a, a, prompts_of_texts(PROMPTS))[0].a == hostile
