"""`strict` and `flexible` give every answer the mark that lm-eval's own filters and exact_match give it, read from its own yaml."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import tasks
from harness.metrics.numbers import CHAIN_OF_THOUGHT, MARKED
from helpers.gsm8k_answers import GOLDEN
from helpers.lm_eval_yaml import Rules

FILES = {"gsm8k": "gsm8k/gsm8k.yaml", "gsm8k_5shot": "gsm8k/gsm8k.yaml", "gsm8k_cot_8shot": "gsm8k/gsm8k-cot.yaml"}
PIECES = [
    *"0123456789.,$-% \n/",
    "#### ",
    "####",
    "The answer is ",
    "the answer is",
    "Question:",
    "Q: ",
    "\N{MINUS SIGN}",
    "\\boxed{",
    "}",
    "18",
    "1,800",
    " eggs",
    "²",
    "٣",
    "\r",
]
RANDOM = 3000


def texts(seed: int) -> Iterator[Any]:
    """Random strings of the pieces that the rules look for, each with a gold answer that it may well give."""
    draw = random.Random(seed)
    for _ in range(RANDOM):
        gold = draw.choice(["18", "1,800", "-5", "7", "0"])
        output = "".join(draw.choices(PIECES, k=draw.randint(0, 14)))
        if draw.random() < 0.5:
            output += (
                draw.choice(["#### ", "The answer is ", "$", ""]) + gold + draw.choice(["", ".", " ", "\n", ".00"])
            )
        yield {"answer": f"Some steps.\n#### {gold}"}, output


def mutated(docs: list[dict[str, str]], gold: Callable, seed: int) -> Iterator[Any]:
    """Gold answers with a few letters dropped, doubled, replaced or moved, most of them near the end."""
    draw = random.Random(seed)
    for doc in docs:
        letters = list(gold(doc))
        yield doc, "".join(letters)
        for _ in range(draw.randint(1, 3)):
            at = max(0, len(letters) - 1 - int(draw.expovariate(0.15)))
            change = draw.randrange(4)
            if change == 0:
                del letters[at]
            elif change == 1:
                letters.insert(at, draw.choice(PIECES))
            elif change == 2:
                letters[at] = draw.choice(PIECES)
            else:
                letters += letters[at:]
        yield doc, "".join(letters)


def equal(name: str, cases: list[tuple[Any, str]]) -> dict[str, int]:
    """Assert that both give each output the same mark under both rules; return how many are right under each."""
    rules, task = Rules(FILES[name]), tasks.load(name)
    docs, outputs = [doc for doc, _ in cases], [output for _, output in cases]
    ours = task.score_many(docs, outputs)
    right = {}
    for metric, theirs in (("strict", "strict-match"), ("flexible", "flexible-extract")):
        extracted = rules.extracted(theirs, outputs)
        assert [score.extracted[metric] or "[invalid]" for score in ours] == extracted
        marks = []
        for doc, text in zip(docs, extracted, strict=True):
            # gsm8k compares with the whole answer, gsm8k_cot with the number that it ends in.
            reference = doc["answer"].split("####")[-1].strip() if name == "gsm8k_cot_8shot" else doc["answer"]
            marks.append(rules.right(text, reference))
        assert [bool(score.scores[metric]) for score in ours] == marks
        right[metric] = sum(marks)
    return right


@pytest.mark.parametrize("name", FILES)
def test_random_texts_and_the_golden_vectors_are_marked_as_lm_eval_marks_them(name: str) -> None:
    golden = [({"answer": f"Some steps.\n#### {gold}"}, output) for output, gold, *_ in GOLDEN]
    cases = [*golden, *texts(seed=1)]
    for right in equal(name, cases).values():
        assert 50 < right < len(cases) - 50  # both marks are given, so that equality says something


@pytest.mark.parametrize("name", FILES)
def test_mutated_gold_answers_are_marked_as_lm_eval_marks_them(
    name: str, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    task = tasks.load(name)
    cases = list(mutated(task.docs(600), task.reference, seed=2))
    for right in equal(name, cases).values():
        assert 600 <= right < len(cases) - 50


def test_the_strict_patterns_are_those_of_the_yaml_files() -> None:
    for ending, file in ((MARKED, "gsm8k/gsm8k.yaml"), (CHAIN_OF_THOUGHT, "gsm8k/gsm8k-cot.yaml")):
        (first,) = Rules(file).filters["strict-match"].filters[:1]
        assert first.keywords["regex_pattern"] == ending.strict.pattern


@pytest.mark.parametrize(
    ("output", "extracted"),
    [
        ("The answer is 18.", "18"),
        ("The answer is 18", "1"),
        ("The answer is 7", None),
        ("The answer is $18.", None),
        ("The answer is 18 eggs", "18"),
        ("The answer is 1. The answer is 2.", "1."),
    ],
)
def test_the_last_dot_of_the_chain_of_thought_s_pattern_takes_any_character(output: str, extracted: str | None) -> None:
    score = tasks.load("gsm8k_cot_8shot").score({"answer": "#### 18"}, output)
    assert score.extracted["strict"] == extracted
    assert score.scores["strict"] == 100.0 * (extracted == "18")


def test_the_number_of_a_chain_of_thought_stands_after_its_last_mark() -> None:
    score = tasks.load("gsm8k_cot_8shot").score({"answer": "#### 18"}, "The answer is 18, which is 3 more than 15.")
    assert score.scores["numeric"] == 100.0
    assert json.loads(score.extracted["numeric"]) == 18
