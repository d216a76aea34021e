"""Rouge-L and exact match against slow references and the rules of the specification."""

from __future__ import annotations

import itertools
import json
import random
import re
import time
from pathlib import Path

import pytest
from nltk.stem.porter import PorterStemmer

from harness.metrics.rouge import clean, normalise, rouge_l, score_response, score_responses

STOP = ["<|endoftext|>"]


def slow_rouge_l(reference: str, response: str) -> float:
    """Rouge-L from its definition: the longest common subsequence by recursion over suffixes."""
    stem = PorterStemmer().stem
    sides = [
        [stem(word) if len(word) > 3 else word for word in re.sub(r"[^a-z0-9]+", " ", text.lower()).split()]
        for text in (reference, response)
    ]
    left, right = sides
    memory: dict[tuple[int, int], int] = {}

    def longest(i: int, j: int) -> int:
        if i == len(left) or j == len(right):
            return 0
        if (i, j) not in memory:
            memory[i, j] = (
                1 + longest(i + 1, j + 1) if left[i] == right[j] else max(longest(i + 1, j), longest(i, j + 1))
            )
        return memory[i, j]

    common = longest(0, 0)
    if common == 0:
        return 0.0
    precision, recall = common / len(right), common / len(left)
    return 100 * 2 * precision * recall / (precision + recall)


def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence_of_stems() -> None:
    words = [
        "the",
        "cats",
        "were",
        "running",
        "quickly",
        "and",
        "3",
        "dogs",
        "ran",
        "to",
        "a",
        "cat's",
        "house,",
        "houses",
    ]
    draw = random.Random(0)
    for _ in range(200):
        reference, response = (" ".join(draw.choices(words, k=draw.randint(0, 12))) for _ in range(2))
        assert rouge_l(reference, response) == pytest.approx(slow_rouge_l(reference, response))


def pairs(real_data: Path) -> list[tuple[str, str]]:
    """10,000 pairs: 9,800 of random words, and real answers against their own references and other rows'."""
    words = [
        "the",
        "cats",
        "were",
        "running",
        "3",
        "a",
        "house,",
        "houses",
        "x-ray",
        "naïve",
        "北京",
        "It's",
        "AND",
        "...",
    ]
    draw = random.Random(3)
    found = [tuple(" ".join(draw.choices(words, k=draw.randint(0, 9))) for _ in range(2)) for _ in range(9800)]
    rows = [json.loads(line) for line in (real_data / "dskd_format/dolly/valid.jsonl").read_text().splitlines()[:101]]
    answers = [row["output"] if isinstance(row["output"], str) else row["output"][0] for row in rows]
    for one, other in itertools.pairwise(answers):
        found += [(one, other[:200]), (one, one[len(one) // 3 :])]
    return found


def test_rouge_l_of_ten_thousand_pairs_is_rouge_score_s_to_the_last_digit(real_data: Path) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    compared = pairs(real_data)
    expected = [100.0 * scorer.score(target, prediction)["rougeL"].fmeasure for target, prediction in compared]
    ours = [score_response([reference], response, []).scores["rouge_l"] for reference, response in compared]
    assert len(ours) == 10_000
    assert ours == expected
    assert len(set(ours)) > 200  # and they are no few values


LETTERS = [
    *"ab1yYsS_-'. \n\t\x00",
    "ing",
    "K",
    "İ",
    "ﬁ",
    "ﬅ",
    "é",
    "ß",
    "１",
    "\u2028",
    "\u00a0",
    "\udc00",
    "running",
    "flies",
]


def test_rouge_l_of_any_text_is_rouge_score_s_to_the_last_digit() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    draw = random.Random(5)
    compared = [tuple("".join(draw.choices(LETTERS, k=draw.randint(0, 60))) for _ in range(2)) for _ in range(3000)]
    compared += [(one, "") for one, _ in compared[:3]] + [("y" * 5000, "y" * 5000), ("sses" * 999, "sse" * 999)]
    expected = [100.0 * scorer.score(target, prediction)["rougeL"].fmeasure for target, prediction in compared]
    assert [rouge_l(*pair) for pair in compared] == expected
    assert len(set(expected)) > 100


def test_a_hundred_thousand_words_are_scored_in_seconds() -> None:
    words = [f"w{number}" for number in range(100_000)]
    kept = words[::3]
    start = time.process_time()
    score = rouge_l(" ".join(words), " ".join(kept))
    assert time.process_time() - start < 30
    precision, recall = 1.0, len(kept) / len(words)
    assert score == 100.0 * (2 * precision * recall / (precision + recall))


def test_processes_give_the_same_scores_in_the_same_order() -> None:
    draw = random.Random(6)
    texts = [
        " ".join(draw.choices(["the", "cats", "running", "houses", "3"], k=draw.randint(0, 9))) for _ in range(2400)
    ]
    references, outputs = [[texts[number], "cats"] for number in range(1200)], texts[1200:]
    done: list[None] = []
    apart = score_responses(references, outputs, STOP, lambda: done.append(None), workers=2)
    assert apart == score_responses(references, outputs, STOP, lambda: done.append(None))
    assert len(done) == 2400


def test_texts_without_ascii_letters_score_zero() -> None:
    assert rouge_l("北京", "北京") == 0.0
    assert rouge_l("anything", "") == 0.0


def test_the_best_of_the_references_counts() -> None:
    score = score_response(["a red house", "The blue sky."], "the blue sky", STOP)
    assert score.scores == {"rouge_l": 100.0, "exact_match": 100.0}


def test_exact_match_ignores_case_punctuation_and_space_but_not_articles() -> None:
    assert normalise("  It's  RED, \n") == "its red"
    assert score_response(["red house"], "Red, house!", STOP).scores["exact_match"] == 100.0
    assert score_response(["red house"], "a red house", STOP).scores["exact_match"] == 0.0


def test_an_output_is_cut_cleaned_and_stripped() -> None:
    assert clean("  one<n>two <|endoftext|> three", STOP) == "one\ntwo"


def test_an_empty_output_is_invalid_and_scores_zero() -> None:
    score = score_response(["yes"], " \n<|endoftext|>yes", STOP)
    assert score.outcome == "invalid"
    assert score.extracted == {"response": None}
    assert score.scores["rouge_l"] == 0.0
