"""Every rule that reads an answer reads the model's own: not its reasoning, nor a turn or a question that it invents."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from dskd.tokenization.reasoning import KNOWN
from harness.metrics import choices, code_answers, final_answer, final_number
from harness.metrics.bbh import reader_of
from harness.metrics.choices import find_choice
from harness.metrics.code_answers import read_code
from harness.metrics.final_answer import find_answer
from harness.metrics.final_number import find_final_number
from harness.metrics.own_answer import own_turn
from helpers.paths import ROOT

QUESTION = {"task": "geometric_shapes", "input": "What is it?\nOptions:\n(A) a kite\n(B) a circle", "target": "(A)"}
DRAFT, FINAL, INVENTED = 7, 18, 99


def number(text: str) -> str | None:
    found = find_final_number(text)
    return None if found is None else found.text


# What reads an answer, how it is given (a draft, the final one, an invented one), and what is read.
READERS: dict[str, tuple[Callable[[str], str | None], dict[int, str], str]] = {
    "number": (number, {n: f"The answer is {n}." for n in (DRAFT, FINAL, INVENTED)}, "18"),
    "expression": (find_answer, {n: rf"So it is $\boxed{{{n}}}$." for n in (DRAFT, FINAL, INVENTED)}, "18"),
    "choice": (
        lambda text: find_choice(reader_of(QUESTION), text),
        {DRAFT: "The answer is (B).", FINAL: "The answer is (A).", INVENTED: "The answer is (B)."},
        "(A)",
    ),
}
TURNS = ("<|im_end|>\n<|im_start|>user\n", "</s>", "<end_of_turn>\n", "[INST] ", "### Instruction:\n")
QUESTIONS = ("Question: ", "Q: ", "**Problem 2:** ", "## Exercise 3: ", "Human: ", "User: ", "Next question: ", "Q12: ")
CASES = list(READERS.items())


@pytest.mark.parametrize(("name", "reader"), CASES, ids=READERS)
def test_reasoning_is_no_answer_whatever_marks_it(name: str, reader: tuple) -> None:
    read, given, right = reader
    for markers in KNOWN:
        draft = f"{markers.opening}\n{given[DRAFT]}\n{markers.end}{markers.closing}\n\n"
        assert read(draft + given[FINAL]) == right, markers
        assert read(draft.removeprefix(markers.opening) + given[FINAL]) == right, markers  # opened by the prompt
        assert read(f"{markers.opening}\n{given[DRAFT]}\n{given[FINAL]}") is None, markers  # it never ends


@pytest.mark.parametrize("between", [*TURNS, *QUESTIONS])
@pytest.mark.parametrize(("name", "reader"), CASES, ids=READERS)
def test_what_a_model_invents_after_its_answer_is_not_read(name: str, reader: tuple, between: str) -> None:
    read, given, right = reader
    assert read(f"{given[FINAL]}\n\n{between}And what else?\n{given[INVENTED]}") == right


def test_code_in_reasoning_is_no_answer() -> None:
    draft, final = (f"```python\ndef f():\n    return {value}\n```" for value in (DRAFT, FINAL))
    for markers in KNOWN:
        text = f"{markers.opening}\n{draft}\n{markers.end}{markers.closing}\n"
        assert "18" in read_code(text + final, ["f"])
        assert "7" not in read_code(text + final, ["f"])
        assert "def f" not in read_code(text.removesuffix(f"{markers.closing}\n"), ["f"])


def test_a_mention_of_a_marker_ends_no_reasoning() -> None:
    assert number("The tag `</think>` ends it. The answer is 18.") == "18"
    assert own_turn("It prints 3 `</think>` tags.") == "It prints 3 `</think>` tags."


@pytest.mark.parametrize(
    "piece", ["</think>", "<think>", "`</think>", "Q:\n", "<|", "```\n</think>\n", "[/THINK]`", "# # "]
)
def test_ten_megabytes_are_read_in_a_bounded_time(piece: str) -> None:
    start = time.process_time()
    own_turn(piece * (10_000_000 // len(piece)))
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("section", "rule"),
    [("Numbers", final_number), ("Choices", choices), ("Expressions", final_answer), ("Code", code_answers)],
)
def test_the_page_names_the_version_of_each_rule(section: str, rule: object) -> None:
    text = (ROOT / "docs" / "answers.md").read_text(encoding="utf-8").partition(f"\n## {section}\n")[2]
    said = re.search(r"\b(?:rule|version) ([0-9]+)", text, re.IGNORECASE)
    assert said is not None
    assert said[1] == rule.RULE
