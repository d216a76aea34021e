"""The three GSM8K rules on the golden vectors of the specification, and lm-eval's own classes on the same texts."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.metrics.numbers import (
    equals_as_lm_eval,
    extract_flexible,
    extract_strict,
    score_number,
    value,
)
from helpers.gsm8k_answers import GOLDEN

STOP = ["Question:", "</s>", "<|im_end|>"]


@pytest.mark.parametrize(("output", "gold", "strict", "flexible", "numeric"), GOLDEN)
def test_the_golden_vectors_hold(output: str, gold: str, strict: bool, flexible: bool, numeric: bool) -> None:
    score = score_number(f"Some steps.\n#### {gold}", output, STOP)
    assert score.scores == {"numeric": 100.0 * numeric, "strict": 100.0 * strict, "flexible": 100.0 * flexible}
    assert score.outcome == ("correct" if numeric else "wrong")


def test_flexible_is_right_once_the_output_is_cut_at_the_stop() -> None:
    assert score_number("#### 5", "#### 5\n\n", STOP).scores["flexible"] == 100.0


def test_a_fraction_in_latex_has_its_value() -> None:
    assert score_number("#### 0.5", r"The answer is \frac{1}{2}", STOP).scores["numeric"] == 100.0
    assert score_number("#### 12", r"The answer is \frac{1}{2}", STOP).scores["numeric"] == 0.0


def test_an_answer_without_a_number_is_invalid() -> None:
    score = score_number("#### 3", "I do not know...", STOP)
    assert score.outcome == "invalid"
    assert score.extracted["numeric"] is None
    assert set(score.scores.values()) == {0.0}


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "NaN", "Infinity", "1e999999999", "2^9999999", "9" * 100_000])
def test_what_is_no_number_or_has_no_end_equals_nothing(text: str) -> None:
    assert value(text) is None
    for gold in ("0", "3", "-1"):
        assert score_number(f"#### {gold}", f"#### {text}", STOP).scores["numeric"] == 0.0


def test_a_tolerance_is_not_reached_by_what_is_as_far_away() -> None:
    tolerance = Fraction(1, 1000)
    marks = {
        output: score_number("#### 2.5", output, STOP, tolerance=tolerance).scores["numeric"]
        for output in ("#### 2.5", "#### 2.5009", "#### 2.501", "#### 2.499", "#### 2.4991")
    }
    assert list(marks.values()) == [100.0, 100.0, 0.0, 0.0, 100.0]


def test_a_number_without_end_is_wrong_and_costs_nothing() -> None:
    assert value("9" * 100_000) is None
    assert score_number("#### 3", "9" * 100_000, STOP).outcome == "wrong"


LM_EVAL_TEXT = st.text(alphabet="0123456789.,$-#% aZ\n/", max_size=30)


@settings(max_examples=300, deadline=None)
@given(output=LM_EVAL_TEXT, gold=st.sampled_from(["18", "1,800", "-5", "0.75"]))
def test_strict_and_flexible_are_lm_eval_s_own(output: str, gold: str) -> None:
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    reference = f"1 + 1 = <<1+1=2>>2\n#### {gold}"
    for ours, theirs in (
        (extract_strict, RegexFilter(r"#### (\-?[0-9\.\,]+)")),
        (extract_flexible, RegexFilter(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)),
    ):
        (extracted,) = theirs.apply([[output]], [{}])[0]
        assert (ours(output) or "[invalid]") == extracted
        match = exact_match_hf_evaluate(
            predictions=[extracted],
            references=[reference],
            ignore_case=True,
            ignore_punctuation=False,
            regexes_to_ignore=[",", "\\$", "(?s).*#### ", "\\.$"],
        )["exact_match"]
        assert equals_as_lm_eval(ours(output), reference) == bool(match)


@pytest.mark.parametrize(("output", "gold", "strict", "flexible", "numeric"), GOLDEN)
def test_lm_eval_gives_the_golden_vectors_their_marks(
    output: str, gold: str, strict: bool, flexible: bool, numeric: bool
) -> None:
    from lm_eval.filters.extraction import RegexFilter

    for pattern, select, right in (
        (r"#### (\-?[0-9\.\,]+)", 0, strict),
        (r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1, flexible),
    ):
        (extracted,) = RegexFilter(pattern, select).apply([[output]], [{}])[0]
        assert equals_as_lm_eval(extracted, f"#### {gold}") == right
