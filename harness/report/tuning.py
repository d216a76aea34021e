"""Tuning, as the page shows it: trials, what their scores go with, and the best score so far against what it has cost."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from harness.protocols import column_title
from harness.tables.rows import CostRow, Leaderboard
from harness.tables.sensitivity import Sensitivity, in_order, sensitivities
from harness.tables.setting_text import printable, settings_text, value_text
from harness.tables.tuning_rows import TunedMethod


def tuning_of(board: Leaderboard) -> list[dict[str, Any]]:
    """Each method that was tuned: what was chosen, its trials by number, its options, and its best score so far."""
    return [_method(method) for method in board.tuning]


def gains_of(board: Leaderboard) -> list[dict[str, Any]]:
    """What tuning gave, by the titles of columns and under the names that the page has for differences."""
    return [
        {**asdict(gain), "task": column_title(gain.task, gain.protocol), "method": gain.default, "items": gain.n_items}
        for gain in board.gains
    ]


def cost_of(board: Leaderboard, row: CostRow) -> dict[str, Any]:
    """What a method's trainings cost; where methods are tuned, also its trials, of all its seeds together, and one training with them."""
    if not board.tuning:
        return asdict(row)
    tuned = board.tuning_of(row.teacher, row.student, row.method)
    tokens, seconds = (None, None) if tuned is None else (tuned.tokens, tuned.seconds)
    return {
        **asdict(row),
        "trial_tokens": tokens,
        "trial_seconds": seconds,
        "tokens_with_trials": _sum(row.tokens, tokens),
        "seconds_with_trials": _sum(row.train_seconds, seconds),
    }


def _sum(training: float | None, trials: float | None) -> float | None:
    return None if training is None else round(training + (trials or 0), 3)


def best_so_far(method: TunedMethod) -> list[dict[str, Any]]:
    """The best score after each trial, with the tokens and seconds of all up to it, in the order of their numbers.

    Only trials that were trained as long as the longest can be the best: a score of fewer steps is of something else. A trial that does
    not say what it cost adds nothing.
    """
    longest = max((trial.share for trial in method.ranking), default=1.0)
    curve: list[dict[str, Any]] = []
    tokens, seconds, best = 0, 0.0, None
    for trial in in_order(method.ranking):
        tokens, seconds = tokens + (trial.tokens or 0), round(seconds + (trial.seconds or 0.0), 3)
        whole = trial.score is not None and trial.share == longest
        best = trial.score if whole and (best is None or (trial.score or 0.0) > best) else best
        score = trial.score if whole else None
        curve.append({"trial": trial.trial, "tokens": tokens, "seconds": seconds, "score": score, "best": best})
    return curve


def _method(method: TunedMethod) -> dict[str, Any]:
    row = method.row
    ranks = {trial.trial: rank for rank, trial in enumerate(method.ranking, 1)}
    said = {
        name: value for name, value in asdict(row).items() if name not in ("settings", "budget", "space", "defaults")
    }
    return {
        **said,
        "rule": printable(row.rule),
        "said": settings_text(row.settings),
        "allowed": row.allowed,
        "ranking": [
            {
                **trial.model_dump(mode="json", exclude={"settings", "scores"}),
                "scores": {printable(task): score for task, score in trial.scores.items()},
                "rank": ranks[trial.trial],
                "said": settings_text(trial.settings),
            }
            for trial in in_order(method.ranking)
        ],
        "options": [_option(each) for each in sensitivities(method)],
        "curve": best_so_far(method),
    }


def _option(found: Sensitivity) -> dict[str, Any]:
    """An option; values that are no numbers are texts."""
    shown = value_text if found.scale == "values" else _as_it_is
    return {
        **asdict(found),
        "option": printable(found.option),
        "range": printable(found.range),
        "default": None if found.default is None else shown(found.default),
        "values": [(trial, shown(value)) for trial, value in found.values],
        "groups": [(value_text(value), rank, n) for value, rank, n in found.groups],
    }


def _as_it_is(value: Any) -> Any:
    return value
