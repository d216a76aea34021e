"""What the judgements of a comparison come to. It follows from them alone: the same judgements give the same summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from harness.endpoints.usage import usage_of
from harness.judge.agreement import agreement
from harness.judge.folder import Key
from harness.judge.length_control import length_controlled
from harness.judge.orders import Outcome, combine, position
from harness.judge.pairs import ORDERS, Pair, Question
from harness.judge.win_rate import win_rate

WINNERS = ("A", "tie", "B")
VERDICTS = ("1", "tie", "2")
DIGITS = 6  # significant: p-values are small

Judgements = Mapping[Key, Mapping[str, Any]]


def summarise(pairs: Sequence[Pair], asked: Sequence[Question], judgements: Judgements) -> dict[str, Any]:
    """Return the summary of the pairs, each of which was asked in both orders, and of what was asked again.

    Shares and win rates are 0 to 100, of A; lengths are in characters.
    """
    outcomes = {pair.key: combine(*_both(pair, "winner", judgements)) for pair in pairs}
    used = [judgements[question.key] for question in asked]
    first_time = [judgements[question.key] for question in asked if question.repeat == 0]
    verdicts = [_both(pair, "verdict", judgements) for pair in pairs]
    summary = {
        "win_rate": _win_rate(pairs, outcomes),
        "length_controlled": _length_controlled(pairs, outcomes),
        "lengths": {side: _mean([len(getattr(pair, side)) for pair in pairs]) for side in ("a", "b")},
        "outcomes": _counts(outcomes.values()),
        "unreadable": _unreadable(first_time),
        "position": position((each["verdict"] for each in first_time), verdicts),
        "orders": agreement((_both(pair, "winner", judgements) for pair in pairs), WINNERS),
        "repeats": _repeats(pairs, asked, judgements),
        "cost": usage_of(used),
    }
    return _rounded(summary)


def _both(pair: Pair, what: str, judgements: Judgements, repeat: int = 0) -> tuple[Any, Any]:
    first, second = (judgements[*pair.key, order, repeat][what] for order in ORDERS)
    return first, second


def _win_rate(pairs: Sequence[Pair], outcomes: Mapping[tuple[str, int], Outcome]) -> dict[str, Any]:
    by_prompt: dict[str, list[float]] = {}
    for pair in pairs:
        if (preference := outcomes[pair.key].preference) is not None:
            by_prompt.setdefault(pair.id, []).append(preference)
    return win_rate(by_prompt)


def _length_controlled(pairs: Sequence[Pair], outcomes: Mapping[tuple[str, int], Outcome]) -> dict[str, Any]:
    judged = [(pair, value) for pair in pairs if (value := outcomes[pair.key].preference) is not None]
    if not judged:
        return {"value": None, "ci95": None, "reason": "no pair has a readable verdict in both orders"}
    fitted = length_controlled(
        [value for _, value in judged],
        [len(pair.a) - len(pair.b) for pair, _ in judged],
        [pair.id for pair, _ in judged],
    )
    return {
        "value": fitted.win_rate,
        "ci95": list(fitted.ci95),
        "theta": fitted.theta,
        "phi": fitted.phi,
        "scale": fitted.scale,
        "overlap": fitted.overlap,
    }


def _counts(outcomes: Iterable[Outcome]) -> dict[str, int]:
    every = list(outcomes)
    return {
        "pairs": len(every),
        **{winner: sum(outcome.winner == winner for outcome in every) for winner in WINNERS},
        "unreadable": sum(outcome.winner is None for outcome in every),
        "inconsistent": sum(outcome.consistency in {"half", "reversed"} for outcome in every),
        "reversed": sum(outcome.consistency == "reversed" for outcome in every),
    }


def _unreadable(judgements: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    unreadable = [each for each in judgements if each["verdict"] is None]
    cut = sum(each["finish_reason"] == "length" for each in unreadable)
    return {"verdicts": len(unreadable), "cut_off": cut, "of": len(judgements)}


def _repeats(pairs: Sequence[Pair], asked: Sequence[Question], judgements: Judgements) -> dict[str, Any] | None:
    """How far the judge says the same when it is asked the same again: each verdict, and the outcome of each pair."""
    again = {question.pair.key for question in asked if question.repeat}
    if not again:
        return None
    chosen = [pair for pair in pairs if pair.key in again]
    verdicts, outcomes = [], []
    for pair in chosen:
        for order in ORDERS:
            first, second = (judgements[*pair.key, order, repeat]["verdict"] for repeat in (0, 1))
            verdicts.append((first, second))
        before, after = (combine(*_both(pair, "winner", judgements, repeat)).winner for repeat in (0, 1))
        outcomes.append((before, after))
    return {"pairs": len(chosen), "verdicts": agreement(verdicts, VERDICTS), "outcomes": agreement(outcomes, WINNERS)}


def _mean(values: Sequence[int]) -> float | None:
    return fmean(values) if values else None


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
