"""Which choice is read out of an answer: cases made by hand; tests/helpers/choice_forms.py has the forms of right answers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from harness.metrics.bbh import authors_answer, get_answer, reader_of
from harness.metrics.choices import find_choice

OPTION = {
    "task": "shapes",
    "input": "Which?\nOptions:\n(A) circle\n(B) heptagon\n(C) hexagon\n(D) kite",
    "target": "(A)",
}
NAVIGATE = {"task": "navigate", "input": "", "target": "Yes"}
FALLACY = {"task": "formal_fallacies", "input": "", "target": "valid"}
BOOLEAN = {"task": "boolean_expressions", "input": "", "target": "True"}
NUMBER = {"task": "object_counting", "input": "", "target": "8"}
BRACKETS = {"task": "dyck_languages", "input": "Close it. Input: [ {", "target": "} ]"}
WORDS = {"task": "word_sorting", "input": "Sort. List: pear apple kiwi", "target": "apple kiwi pear"}
SPORTS = {"task": "sports_understanding", "input": "", "target": "yes"}
NAME = {"task": "movie_recommendation", "input": "Pick\nOptions:\n(A) Lions\n(B) Ltd", "target": "Lions, Ltd"}

CASES: list[tuple[dict[str, Any], str, str | None]] = [
    (OPTION, "I cannot answer that.", None),
    (OPTION, "I'm not sure.", None),
    (OPTION, "", None),
    (OPTION, "The answer is (Z).", None),
    (OPTION, "The answer is not (A).", None),
    (OPTION, "Answer: none of the above", None),
    (OPTION, "(A) circle: no.\n(B) heptagon: it has seven sides.\n(C) hexagon: no.", None),
    (OPTION, "I think a circle has none. It is a heptagon.", "(B)"),
    (OPTION, "The answer is a heptagon.", "(B)"),
    (OPTION, "The answer is A circle.", "(A)"),
    (OPTION, "The options are (A), (B), (C).\n\nIt has 7 sides, so it is a heptagon (B). Option (A) is wrong.", "(B)"),
    (OPTION, "(B)\n\nThe correct answer is not (A) since a circle has no sides.", "(B)"),
    (OPTION, "A heptagon has seven sides.\n\nSo: B", "(B)"),
    (OPTION, "**Answer: (B) heptagon**\n\n**Why not (C)?** It has six.", "(B)"),
    (OPTION, "The best fit is **heptagon**.", "(B)"),
    (OPTION, "The answer choices are (A) to (D). I pick (D)", "(D)"),
    (OPTION, '{"answer": "B"}', "(B)"),
    (OPTION, "The answer\nis (B)", "(B)"),
    (OPTION, "The path closes after seven lines, so it draws a heptagon.", "(B)"),
    (OPTION, "The correct answer is **B**: heptagon, not (A) circle.", "(B)"),
    (OPTION, "Thus (B) is the answer, as (A) has no corners.", "(B)"),
    (OPTION, "$\\boxed{\\textbf{(B)}}$", "(B)"),
    (OPTION, "**Final answer: \\(\\boxed{B}\\)**", "(B)"),
    (OPTION, "Ｂ", "(B)"),
    (NAVIGATE, "No, because you end two steps ahead.", "No"),
    (NAVIGATE, "There is no reason to think otherwise.", None),
    (NAVIGATE, "I don't know", None),
    (NAVIGATE, "We end at 0. So yes.", "Yes"),
    (NAVIGATE, "Yes.\n\nWait, step 3 was missed. The answer is No.", "No"),
    (NAVIGATE, "So the final answer is: **No**, you do not return.", "No"),
    (NAVIGATE, "Since 3 - 3 = 0, you do return to the starting point.", "Yes"),
    (FALLACY, "The argument is deductively invalid.", "invalid"),
    (FALLACY, "Therefore the argument is not deductively valid.", "invalid"),
    (FALLACY, "The answer is that the argument is not valid.", "invalid"),
    (FALLACY, "Is it valid or invalid? It is valid.", "valid"),
    (FALLACY, "**Invalid**\n\nA valid argument would need more.", "invalid"),
    (BOOLEAN, "not True = False\nFalse or True = True", "True"),
    (BOOLEAN, "(True and False) evaluates to False.", "False"),
    (NUMBER, "I have one flute, two lamps: 1 + 2 = 3 items.", "3"),
    (NUMBER, "You have eight instruments.", "8"),
    (NUMBER, "The answer is twenty-one.", "21"),
    (NUMBER, "The total is 8. (2 lamps are not counted.)", "8"),
    (NUMBER, "= (-5) - (30) = -35", "-35"),
    (NUMBER, "The answer is 1,234", "1234"),
    (NUMBER, "The answer is \N{MINUS SIGN}7.", "-7"),
    (NUMBER, "So the count is 10-2=8", "8"),
    (NUMBER, "No idea", None),
    (BRACKETS, "The closing brackets are `}` and `]`.", "} ]"),
    (BRACKETS, 'We pop "{" and "[". So we need "}", "]". So the answer is } ].', "} ]"),
    (BRACKETS, "[ { } ]", "} ]"),
    (BRACKETS, "No idea", None),
    (WORDS, "pear apple kiwi sorted gives: Apple, Kiwi, Pear.", "apple kiwi pear"),
    (WORDS, "The answer is apple pear.", "the answer is apple pear"),
    (SPORTS, "Not plausible", "no"),
    (SPORTS, "The sentence is implausible because he plays soccer.", "no"),
    (SPORTS, "He is a soccer player. So it is plausible.", "yes"),
    (OPTION, "It has 7 vertices, which makes it a heptagon, not a hexagon.", "(B)"),
    (OPTION, "It is a kite rather than a circle", "(D)"),
    (OPTION, "A heptagon has seven sides; this has six, so it is a hexagon.", "(C)"),
    (OPTION, "Kite, because it has four sides, unlike a hexagon.", "(D)"),
    (OPTION, "Let us check:\n(A) circle - False\n(B) heptagon - True\n(C) hexagon - False\n(D) kite - False", "(B)"),
    (OPTION, "(A) ❌\n(B) ❌\n(C) ✅\n(D) ❌", "(C)"),
    (OPTION, "(A) circle: possible\n(B) heptagon: correct\n(C) hexagon: correct", None),
    (OPTION, "(A) circle: False\n(B) heptagon: True\n\nTherefore, (D).", "(D)"),
    (OPTION, "Statement (B) is better than statement (A).", "(B)"),
    (OPTION, "Here (B) is correct, but it is not asked for. So (C) is correct.", "(C)"),
    (NAVIGATE, "You end up at (1, 0), which is not the starting point.", "No"),
    (NAVIGATE, "You end up 3 steps away from the starting point.", "No"),
    (NAVIGATE, "You end up at the starting point.", "Yes"),
    (NUMBER, "You have:\n- 1 flute\n- 5 pianos\n- 2 drums\n\nTotal: 1 + 5 + 2 = 8", "8"),
    (NUMBER, "- one flute\n- two drums\n\nThat is 1 + 2 = 3 things", "3"),
    (NUMBER, "1 + 5 = 6\n\n- 8", "-8"),
    (NAME, "The answer is Lions, Ltd.", "lions ltd"),
    (NAME, "The answer is (A).", "a"),
]


@pytest.mark.parametrize(("doc", "answer", "read"), CASES)
def test_the_choice_is_read(doc: dict[str, Any], answer: str, read: str | None) -> None:
    assert find_choice(reader_of(doc), answer) == read


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    [
        "[",
        "{",
        "}",
        "\n",
        "*",
        "\\boxed{",
        "\\text{",
        "the answer is ",
        "The answer is the the the ",
        "the answer is not ",
        "(A) ",
        "(A)\n",
        "Q:\n",
        "thanks\n",
        "1. apple\n",
        "**a**",
        "9",
        "\u0663",
        "\ufdfa",
        "\udc80",
        "\0",
        "__import__('os').system('true')\n",
    ],
)
def test_ten_million_letters_of_anything_are_read_in_moments(part: str) -> None:
    text = part * (10_000_000 // len(part))
    start = time.process_time()
    for doc in (OPTION, NAVIGATE, NUMBER, BRACKETS, WORDS, NAME):
        find_choice(reader_of(doc), text)
    get_answer(text)
    authors_answer(text)
    assert time.process_time() - start < 30


def test_the_answer_at_the_end_of_an_endless_text_is_read() -> None:
    assert find_choice(reader_of(OPTION), "so on and " * 100_000 + "\nThe answer is (B).") == "(B)"


def test_the_authors_answer_is_what_follows_the_last_mark_on_its_line() -> None:
    assert authors_answer("So the answer is (B).") == "(B)"
    assert authors_answer("the answer is 1. No: the answer is 2..\nMore") == "2."
    assert authors_answer("The Answer Is 2.") is None


def test_lm_eval_s_filter_drops_the_last_character_and_stops_at_every_q() -> None:
    assert get_answer("So the answer is (B).") == "(B)"
    assert get_answer("So the answer is (B)") == "(B"
    assert get_answer("Quinn has it. So the answer is (B).") is None
    assert get_answer("So the answer is (Q).") == ""
