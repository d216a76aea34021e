"""Completions are cut, put together with their tests, and run."""

from __future__ import annotations

from typing import Any

import pytest

from harness.metrics.code import program, score_completions
from harness.metrics.sample import before_stop

STOP = ["\nclass", "\ndef", "\n#", "\nif", "\nprint"]
DOC = {
    "prompt": 'def add(a, b):\n    """Add. # not a stop\n\n    if only\n    """\n',
    "entry_point": "add",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}


def score(*completions: str) -> list[Any]:
    return score_completions([DOC] * len(completions), completions, STOP, lambda: None)


def test_a_completion_ends_at_the_earliest_stop_wherever_that_stands_in_the_list() -> None:
    assert before_stop("    return 1\nprint(1)\ndef f():\nclass A:", STOP) == "    return 1"
    assert before_stop("no stop here", STOP) == "no stop here"
    assert before_stop("anything", []) == "anything"


def test_the_prompt_is_never_cut() -> None:
    whole = program(DOC, "    return a + b")
    assert whole.source == f"{DOC['prompt']}    return a + b\n"
    assert whole.tests == f"{DOC['test']}\ncheck(add)"
    assert (whole.functions, whole.context) == (("add",), DOC["prompt"])
    assert score("    return a + b\n\ndef other(:")[0].outcome == "passed"


def test_outcomes_become_scores() -> None:
    right, wrong, broken, unparsable = score(
        "    return a + b", "    return a - b", "    return c", "  return a\n     return b"
    )
    assert [one.scores["pass@1"] for one in (right, wrong, broken, unparsable)] == [100.0, 0.0, 0.0, 0.0]
    assert [one.outcome for one in (right, wrong, broken, unparsable)] == [
        "passed",
        "failed",
        "exception",
        "syntax_error",
    ]
    assert right.extracted == {"completion": "    return a + b"}


def test_a_blank_completion_is_invalid_and_not_run() -> None:
    (blank,) = score("  \n\ndef add(a, b):\n    return a + b")
    assert blank.outcome == "invalid"
    assert blank.extracted == {"completion": None}
    assert blank.scores == {"pass@1": 0.0}


def test_what_the_harness_could_not_run_has_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.sandbox import Execution

    monkeypatch.setattr(
        "harness.metrics.code.run_programs", lambda sources, advance: [Execution("harness_error", "no room", 0.0)]
    )
    (sample,) = score("    return a + b")
    assert sample.scores == {"pass@1": None}
    assert sample.outcome == "harness_error"
    assert sample.as_dict()["detail"] == "no room"


def test_progress_counts_every_completion_once() -> None:
    steps = []
    score_completions([DOC] * 3, ["", "    return a + b", "x"], STOP, lambda: steps.append(1))
    assert len(steps) == 3
