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

    {"samples": those with reasoning, "never_ended" and its share of all samples in per cent, "answers_cut": answers that the token
    limit cut off, "tokens", "reasoning_tokens", "answer_tokens": means over all samples, "tokens_per_solved": all tokens for each
    solved sample}. Tokens are None where not every sample has them; `tokens_per_solved` also where nothing is solved, or the
    headline metric is not one of right and wrong.
    """
    ended = [sample.get("reasoning_ended", True) for sample in samples]
    reasoned = sum(
        bool(sample.get("reasoning")) or not has_ended for sample, has_ended in zip(samples, ended, strict=True)
    )
    if not reasoned:
        return None
    cut = sum(
        has_ended and sample.get("finish_reason") == "length" for sample, has_ended in zip(samples, ended, strict=True)
    )
    tokens = [sample.get("generated_tokens") for sample in samples]
    known = [count for count in tokens if count is not None]
    complete = len(known) == len(tokens)
    thought = fmean(sample.get("reasoning_tokens") or 0 for sample in samples) if complete else None
    mean = fmean(known) if complete else None
    solved = sum(sample["scores"][headline.name] == 100.0 for sample in samples)
    is_rate = complete and headline.kind == "binary" and headline.higher_is_better and solved
    return {
        "samples": reasoned,
        "never_ended": ended.count(False),
        "never_ended_share": round(100 * ended.count(False) / len(samples), _DECIMALS),
        "answers_cut": cut,
        "tokens": _rounded(mean),
        "reasoning_tokens": _rounded(thought),
        "answer_tokens": _rounded(None if mean is None or thought is None else mean - thought),
        "tokens_per_solved": _rounded(sum(known) / solved if is_rate else None),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DECIMALS)
