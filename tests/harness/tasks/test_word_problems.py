"""GSM-Hard, SVAMP, ASDiv and AIME: their documents, and their rules beside lm-eval's and the benchmarks' own on the same answers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from dskd.plugins import load_file
from harness import tasks
from harness.evaluation.score import summarise
from harness.lm_eval_files import tasks_of_lm_eval
from harness.metrics.competition_integers import matches_as_lm_eval, score_integer
from harness.protocols import PROTOCOLS
from harness.tasks.word_problems import marked
from helpers.lm_eval_yaml import Rules

PIECES = [
    *"0123456789.,-$% \n/",
    "#### ",
    "\\boxed{",
    "\\boxed ",
    "\\fbox{",
    "}",
    "{",
    "18",
    "\\frac",
    "\\text{ ",
    "x=",
    "\\sqrt",
    " eggs",
]


@pytest.fixture(autouse=True)
def _data(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))


def random_answers(golds: list[str], count: int, seed: int) -> list[tuple[int, str]]:
    """Random strings of the pieces that rules look for, and the number of the gold answer that each may give."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        at = draw.randrange(len(golds))
        text = "".join(draw.choices(PIECES, k=draw.randint(0, 12)))
        if draw.random() < 0.6:
            opening, closing = draw.choice(
                [("#### ", ""), ("\\boxed{", "}"), ("$", "$"), ("\\boxed{\\text{", "}}"), ("", ".")]
            )
            text += opening + golds[at] + closing + draw.choice(["", " ", "\n", " and 3"])
        made.append((at, text))
    return made


def test_documents_have_the_benchmarks_own_questions_and_numbers() -> None:
    svamp, hard, asdiv = (tasks.load(name).docs() for name in ("svamp", "gsm_hard", "asdiv"))
    assert svamp[0]["question"].startswith("Each pack of dvds")
    assert (svamp[0]["id"], svamp[0]["answer"]) == ("chal-1", "#### 51")
    assert hard[0]["answer"] == "#### -9867630"
    assert sum("." in doc["answer"] for doc in hard) == 303
    assert sum("-" in doc["answer"] for doc in hard) == 146
    assert (asdiv[0]["answer"], asdiv[0]["question"].count(" ")) == ("#### 9", 17)
    by_id = {doc["id"]: doc["answer"] for doc in asdiv}
    assert [by_id[row] for row in ("867", "1313", "188", "1007")] == ["#### 60", "#### -1/3", "#### 6", "#### 14"]
    assert not {"29", "165", "849", "1110"} & set(by_id)  # a name, a time, a ratio, a date


def test_a_small_reference_is_written_in_digits() -> None:
    assert [marked(number) for number in (18.0, 2.0107e-06, 9284017268534.4, -0.5, 100.0)] == [
        "#### 18", "#### 0.0000020107", "#### 9284017268534.4", "#### -0.5", "#### 100"
    ]  # fmt: skip


def test_gsm_hard_is_right_where_pal_s_rule_is() -> None:
    """PAL's paper: the printed result counts where it differs from the target by less than 1e-3, both as floats."""
    task = tasks.load("gsm_hard")
    docs = task.docs()
    draw = random.Random(5)
    right = 0
    for doc in docs[::3]:
        gold = float(doc["answer"].removeprefix("#### "))
        given = gold + draw.choice([0, 0, 5e-4, -5e-4, 2e-3, -2e-3, 1, -gold])
        theirs = abs(given - gold) < 1e-3
        ours = task.score(doc, f"The answer is {given!r}.").scores["numeric"] == 100.0
        assert ours == theirs, (doc["id"], given)
        right += theirs
    assert 100 < right < 420
    tiny = next(doc for doc in docs if doc["answer"] == "#### 0.0000020107")
    assert task.score(tiny, "#### 0").scores["numeric"] == 100.0  # as PAL has it


@pytest.mark.parametrize("name", ["gsm_hard", "svamp", "asdiv"])
def test_strict_and_flexible_are_lm_eval_s_rules_of_gsm8k_on_these_answers(name: str) -> None:
    task, rules, asdiv = tasks.load(name), Rules("gsm8k/gsm8k.yaml"), Rules("asdiv/asdiv-cot-llama.yaml")
    docs = task.docs(200)
    cases = random_answers([doc["answer"].removeprefix("#### ") for doc in docs], 800, seed=7)
    outputs = [output for _, output in cases]
    scores = task.score_many([docs[at] for at, _ in cases], outputs)
    for metric, theirs in (("strict", "strict-match"), ("flexible", "flexible-extract")):
        extracted = rules.extracted(theirs, outputs)
        assert [score.extracted[metric] or "[invalid]" for score in scores] == extracted
        marks = [rules.right(text, docs[at]["answer"]) for text, (at, _) in zip(extracted, cases, strict=True)]
        assert [score.scores[metric] == 100.0 for score in scores] == marks
        assert 20 < sum(marks) < 700
    if name == "asdiv":  # lm-eval's own task of these questions has the same flexible rule
        assert [score.extracted["flexible"] or "[invalid]" for score in scores] == asdiv.extracted(
            "flexible-extract", outputs
        )


@pytest.mark.parametrize("name", ["aime2024", "aime2025"])
def test_exact_match_of_aime_is_lm_eval_s_own(name: str) -> None:
    theirs = load_file(tasks_of_lm_eval() / "aime" / "utils.py").process_results
    task = tasks.load(name)
    docs = task.docs()
    cases = random_answers([str(doc["answer"]) for doc in docs], 2000, seed=11)
    scores = task.score_many([docs[at] for at, _ in cases], [output for _, output in cases])
    marks = [theirs(docs[at], [output])["exact_match"] for at, output in cases]
    assert [score.scores["exact_match"] / 100.0 for score in scores] == marks
    assert 100 < sum(marks) < 1900


def test_aime_is_asked_and_stopped_as_lm_eval_does() -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    for name, file, field in (("aime2024", "aime24.yaml", "Problem"), ("aime2025", "aime25.yaml", "problem")):
        task, config = tasks.load(name), load_yaml(tasks_of_lm_eval() / "aime" / file)
        doc = task.docs(1)[0]
        assert config["doc_to_text"].replace("{{" + field + "}}", doc["problem"]) == task.prompt(doc)
        assert config["generation_kwargs"]["until"] == list(task.stop)


@pytest.mark.parametrize(
    ("output", "integer", "exact_match"),
    [
        ("$\\boxed{73}$", True, True),
        ("\\boxed{073}", True, False),
        ("\\boxed{n = 73}", True, True),
        ("\\boxed{73 \\text{ ways}}. So 7 more than 66.", True, True),
        ("\\boxed{\\text{73 ways}}", True, False),
        ("The answer is 73.", True, False),
        ("#### 12 \\boxed{73}", True, True),
        ("It is 1. \\boxed{72}", False, False),
        ("\\boxed{73} Question: what else? \\boxed{1}", True, False),
        ("\\boxed{73\\sqrt{2}}", False, False),
    ],
)
def test_integers_are_read_where_lm_eval_s_text_differs(output: str, integer: bool, exact_match: bool) -> None:
    score = score_integer(73, output, ("Question:",))
    assert score.scores == {"integer": 100.0 * integer, "exact_match": 100.0 * exact_match}
    assert matches_as_lm_eval(73, output) == exact_match


def test_what_lm_eval_finds_right_in_a_box_is_right_for_us() -> None:
    for at, output in random_answers(["204", "25", "7"], 2000, seed=13):
        answer = (204, 25, 7)[at]
        boxed = f"So {output.replace(chr(92) + 'boxed', '').replace('#', '')} \\boxed{{{answer}}}"
        score = score_integer(answer, boxed, ())
        assert score.scores["integer"] >= score.scores["exact_match"], boxed


def test_samples_of_aime_are_voted_on_by_value() -> None:
    task = tasks.load("aime2024")
    doc = task.docs(1)[0]
    outputs = ["\\boxed{204}", "\\boxed{0204}", "The answer is 204.0.", "\\boxed{7}", "\\boxed{7}"]
    samples = [{"id": doc["id"], **task.score(doc, output).as_dict()} for output in outputs]
    metrics = summarise(task, samples)["metrics"]
    assert {metrics[f"{kind}@5"]["value"] for kind in ("maj", "pass")} == {100.0}
    assert metrics["avg@5"]["value"] == 60.0
    assert task.answer_key("073") == task.answer_key("73")


def test_the_protocol_of_models_that_reason_draws_sixteen() -> None:
    protocol = PROTOCOLS["reasoning-sampling"]
    assert (protocol.temperature, protocol.top_p, protocol.num_samples) == (0.6, 0.95, 16)


def test_validation_rows_of_gsm8k_are_the_last_and_no_example_is_among_them() -> None:
    for name in ("gsm8k", "gsm8k_5shot", "gsm8k_cot_8shot"):
        docs = tasks.load(f"{name}:validation").docs()
        assert [docs[0]["id"], docs[-1]["id"], len(docs)] == ["train/6973", "train/7472", 500]
    shown = tasks.load("gsm8k_5shot").docs(1)[0]["prompt"]
    assert not [doc["id"] for doc in docs if doc["question"] in shown]
    assert [doc["id"] for doc in tasks.load("aime2025:validation").docs()] == [
        doc["id"] for doc in tasks.load("aime2024").docs()
    ]


@pytest.mark.parametrize(
    "piece", ["\\boxed{", "{", "}", "$", "9", "\\frac", "\\sqrt", "\\text{ ", "9^{9^{9^", "\\boxed ", "\x00"]
)
def test_hostile_answers_to_aime_are_wrong_and_do_not_hang(piece: str) -> None:
    doc: dict[str, Any] = {"answer": 7}
    for letters in (20_000, 2_000_000):
        score = tasks.load("aime2024").score(doc, piece * (letters // len(piece)))
        assert set(score.scores.values()) == {0.0}
