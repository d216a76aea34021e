"""What scores and results say of models that reason: no answer where the reasoning never ended, and what the reasoning cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from harness.metrics.sample import INVALID, Advance, SampleScore
from harness.tasks.task import Doc, Metric, Task

_DECIMALS = 2


def score_answers(
    task: Task,
    docs: Sequence[Doc],
    answers: Sequence[str],
    ended: Sequence[bool],
    *,
    allow_code_execution: bool,
    advance: Advance | None = None,
) -> list[SampleScore]:
    """Score answers; one whose reasoning never `ended` is none, and wrong whatever the task makes of an empty text."""
    scores = task.score_many(docs, answers, allow_code_execution=allow_code_execution, advance=advance)
    return [
        score if has_answer else _without_answer(score, task.metrics)
        for score, has_answer in zip(scores, ended, strict=True)
    ]


def _without_answer(score: SampleScore, metrics: Sequence[Metric]) -> SampleScore:
    # What the worst is of a metric that should be low, only its task knows.
    worst = {metric.name: 0.0 for metric in metrics if metric.higher_is_better}
    extracted = dict.fromkeys(score.extracted)
    return replace(
        score,
        scores={**score.scores, **worst},
        extracted=extracted,
        outcome=INVALID,
        detail="no answer: the reasoning never ended",
    )


def reasoning_summary(headline: Metric, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return what the samples of one task say of a model's reasoning, or None where none has any (an empty block is none).

    {"samples": those with reasoning, "never_ended" and its share of all samples in per cent, "reasoning_cut": reasoning that a limit
    of tokens ended, and its share, "reasoning_closed": of these, those that were closed and answered all the same, "answers_cut":
    answers that a limit cut off, and their share, "tokens", "reasoning_tokens", "answer_tokens": means over all samples,
    "tokens_per_solved"}. Tokens are None where not every sample has them, and what was cut where no sample says how it ended.
    """
    ended = [sample.get("reasoning_ended", True) for sample in samples]
    reasoned = sum(
        bool(sample.get("reasoning")) or not has_ended for sample, has_ended in zip(samples, ended, strict=True)
    )
    if not reasoned:
        return None
    at_limit = [sample.get("finish_reason") == "length" for sample in samples]
    closed = [bool(sample.get("reasoning_closed")) for sample in samples]
    answers_cut = sum(has_ended and at for has_ended, at in zip(ended, at_limit, strict=True))
    reasoning_cut = sum(
        was_closed or (at and not has_ended) for was_closed, at, has_ended in zip(closed, at_limit, ended, strict=True)
    )
    says_how = any("finish_reason" in sample for sample in samples)
    tokens = [sample.get("generated_tokens") for sample in samples]
    known = [count for count in tokens if count is not None]
    complete = len(known) == len(tokens)
    thought = fmean(sample.get("reasoning_tokens") or 0 for sample in samples) if complete else None
    mean = fmean(known) if complete else None
    return {
        "samples": reasoned,
        "never_ended": ended.count(False),
        "never_ended_share": _share(ended.count(False), samples),
        "reasoning_cut": reasoning_cut if says_how else None,
        "reasoning_cut_share": _share(reasoning_cut, samples) if says_how else None,
        "reasoning_closed": closed.count(True),
        "answers_cut": answers_cut,
        "answers_cut_share": _share(answers_cut, samples) if says_how else None,
        "tokens": _rounded(mean),
        "reasoning_tokens": _rounded(thought),
        "answer_tokens": _rounded(None if mean is None or thought is None else mean - thought),
        "tokens_per_solved": tokens_per_solved(headline, samples),
    }


def tokens_per_solved(headline: Metric, samples: Sequence[Mapping[str, Any]]) -> float | None:
    """Return all generated tokens for each sample that is right, those of wrong ones included.

    None where not every sample has its tokens, where nothing is solved, and where the headline metric is not one of right and wrong.
    """
    tokens = [sample.get("generated_tokens") for sample in samples]
    solved = sum(sample["scores"][headline.name] == 100.0 for sample in samples)
    if None in tokens or not solved or headline.kind != "binary" or not headline.higher_is_better:
        return None
    return _rounded(sum(count for count in tokens if count is not None) / solved)


def _share(count: int, samples: Sequence[Any]) -> float:
    return round(100 * count / len(samples), _DECIMALS)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DECIMALS)
