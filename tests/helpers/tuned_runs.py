"""Runs with tuned methods that are written, not trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.runs.identity import Identity
from harness.tuning import rule
from harness.tuning.records import TrialRecord, TuningRecord
from helpers.written_runs import write_run

DEFAULTS = {"options": {"kd_rate": 0.5, "divergence": "forward_kl"}, "training": {"learning_rate": 0.002, "steps": 300}}
SPACE = {
    "divergence": "forward_kl or reverse_kl",
    "kd_rate": "0.3 to 1",
    "training.learning_rate": "the default times 0.25 to 4, by ratio",
}
# (settings, validation score) of the trials; the score falls with the learning rate and is best in the middle of kd_rate.
TRIALS: Sequence[tuple[dict[str, Any], float | None]] = (
    ({}, 60.0),
    ({"divergence": "reverse_kl", "kd_rate": 0.4, "training.learning_rate": 0.001}, 70.0),
    ({"divergence": "forward_kl", "kd_rate": 0.7, "training.learning_rate": 0.0005}, 90.0),
    ({"divergence": "reverse_kl", "kd_rate": 0.95, "training.learning_rate": 0.004}, 50.0),
    ({"divergence": "forward_kl", "kd_rate": 0.8, "training.learning_rate": 0.003}, 55.0),
    ({"divergence": "reverse_kl", "kd_rate": 0.9, "training.learning_rate": 0.008}, None),
)


def tuning_record(
    trials: Sequence[tuple[dict[str, Any], float | None]] = TRIALS,
    shares: Mapping[int, float] | None = None,
    **changes: Any,
) -> TuningRecord:
    """The tuning of a student. `shares`: of trials that were dropped early; what diverged says no cost."""
    records = [
        TrialRecord(
            trial=number,
            settings=settings,
            share=(shares or {}).get(number, 1.0),
            score=score,
            scores={"small_math:validation": None if score is None else 0.9 * score},
            tokens=None if score is None else int(1000 * (shares or {}).get(number, 1.0)),
            seconds=None if score is None else 10.0 * (shares or {}).get(number, 1.0),
        )
        for number, (settings, score) in enumerate(trials)
    ]
    records.sort(key=lambda each: -each.share)
    ordered: list[TrialRecord] = []
    for share in dict.fromkeys(each.share for each in records):
        equal = [each for each in records if each.share == share]
        order = rule.ranked([each.score for each in equal], [each.trial for each in equal])
        ordered += [equal[place] for place in order]
    best, default = ordered[0], next(each for each in ordered if each.trial == 0)
    content: dict[str, Any] = {
        "rule": rule.RULE,
        "budget": {"trials": len(records)},
        "halving": bool(shares),
        "seed": 0,
        "trial_seed": 1_000_000,
        "space": SPACE,
        "chosen": best.trial,
        "settings": best.settings,
        "score": best.score,
        "default_score": default.score,
        "teacher": {"small_math:validation": 90.0},
        "trials": ordered,
    }
    return TuningRecord(**{**content, **changes})


def write_tuned_run(
    folder: Path,
    tuned: Mapping[str, TuningRecord] | None = None,
    *,
    right: Mapping[str, int] | None = None,
    seeds: Sequence[int] = (1, 2),
    items: int = 40,
) -> Path:
    """A run of `kd` and `gkd`, tuned and not, and of `sft`, which nobody tuned.

    Args:
        folder: Of the run.
        tuned: {default name: how it was tuned}.
        right: {method: so many of the items are right}.
        seeds: Of each method.
        items: Of the test set.
    """
    tuned = {"kd": tuning_record(), "gkd": tuning_record()} if tuned is None else tuned
    right = {"teacher": 38, "sft": 35, "kd": 10, "kd+tuned": 30, "gkd": 20, "gkd+tuned": 31} if right is None else right
    methods = [name for name in right if name != "teacher"]
    write_run(
        folder, methods=methods, seeds=seeds, items=items, score=lambda method, item: 100.0 * (item < right[method])
    )
    for name, tuning in tuned.items():
        for path in folder.glob(f"cells/*/{name}+tuned/*/train/result.json"):
            content = json.loads(path.read_text())
            seed = content["cell"]["seed"]
            content |= {
                "tuning": tuning.model_dump(mode="json"),
                "identity": Identity.of({**DEFAULTS, "method": name, "seed": seed}).model_dump(mode="json"),
            }
            path.write_text(json.dumps(content))
    return folder
