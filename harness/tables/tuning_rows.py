"""What tables say of tuning: how each setting was chosen, and what the choice gave on the test items."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.config.tuning import base_name
from harness.runs.records import Record
from harness.tables.setting_text import budget_text
from harness.tuning.records import TrialRecord, TuningRecord

_TRAINING = "training."  # before the name of an option of the training, in settings


@dataclass(frozen=True)
class TuningRow:
    """How the setting of one method on one pair was chosen. It is of the method: all its seeds have the same trials.

    Attributes:
        method: Its name in tables, as `kd+tuned`.
        default: The name of the same method with its default setting.
        chosen: The trial that was chosen; 0 is the default.
        settings: What it changes of the default.
        score: Its validation score by the rule; `default_score` that of the default.
        default_share: Of the steps, those that the default had been trained for then: less than all where halving dropped it.
        trials: How many there were; `scored` those that have a score.
        budget: What was allowed, as the matrix says it.
        tasks: Whose validation items chose.
        tokens: Student tokens of all trials.
        seconds: Of training all trials; evaluating them on validation items is not counted.
        uncounted: Trials that do not say what they cost, as those whose loss stopped being finite.
        space: {option: its range in words}.
        defaults: {option: its value without tuning}, as far as the record says it.
    """

    teacher: str
    student: str
    method: str
    default: str
    chosen: int
    settings: dict[str, Any]
    score: float
    default_score: float | None
    default_share: float
    trials: int
    scored: int
    budget: dict[str, Any]
    halving: bool
    seed: int
    trial_seed: int
    tasks: list[str]
    rule: str
    tokens: int | None
    seconds: float | None
    uncounted: int
    space: dict[str, str]
    defaults: dict[str, Any]

    @property
    def pair(self) -> tuple[str, str]:
        """Teacher and student."""
        return self.teacher, self.student

    @property
    def allowed(self) -> str:
        """The budget in words."""
        return budget_text(self.budget, halving=self.halving)


@dataclass(frozen=True)
class GainRow:
    """What tuning gave one method in one column: tuned minus default, in points, on the shared test items.

    Attributes:
        p_value: Two-sided; `p_holm` is adjusted over all rows of the pair.
        excluded: Items that were left out.
        test: Its name.
        reason: Why there is no comparison.
    """

    teacher: str
    student: str
    method: str
    default: str
    task: str
    protocol: str
    metric: str
    default_value: float | None
    tuned_value: float | None
    difference: float | None = None
    ci95: tuple[float, float] | None = None
    p_value: float | None = None
    p_holm: float | None = None
    min_detectable_effect: float | None = None
    seeds: int | None = None
    n_items: int | None = None
    excluded: int | None = None
    test: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class TunedMethod:
    """A row with the trials that it is made of, the best first."""

    row: TuningRow
    ranking: Sequence[TrialRecord]


def tuned_methods(records: Iterable[Record]) -> tuple[list[TunedMethod], list[str]]:
    """A row for each method whose trainings say how their setting was chosen, and notes.

    Args:
        records: Of trainings that are done; the others are passed over.

    Returns:
        The rows, sorted, and a note for each method whose seeds were tuned differently, and for each pair with unequal budgets.
    """
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        if record.tuning is not None and record.cell.task is None and record.status == "done":
            cell = record.cell
            groups.setdefault((cell.teacher, str(cell.student), cell.method), []).append(record)
    found, notes = [], []
    for key in sorted(groups):
        ordered = sorted(groups[key], key=lambda record: record.cell.seed or 0)
        tunings = [record.tuning for record in ordered if record.tuning is not None]
        found.append(TunedMethod(_row(key, ordered[0], tunings[0]), tunings[0].trials))
        if any(each != tunings[0] for each in tunings):
            notes.append(
                f"{key[0]} -> {key[1]}, {key[2]}: seeds were tuned differently; the trials of the first are shown"
            )
    return found, notes + unequal_budgets([each.row for each in found])


def unequal_budgets(rows: Sequence[TuningRow]) -> list[str]:
    """A note for each pair whose methods were not tuned alike: by other budgets, other validation items, or another rule."""
    said: dict[str, Callable[[TuningRow], str]] = {
        "budgets": lambda row: row.allowed,
        "validation tasks": lambda row: ", ".join(row.tasks) or "none",
        "rules": lambda row: row.rule,
    }
    notes = []
    for pair in sorted({row.pair for row in rows}):
        of_pair = [row for row in rows if row.pair == pair]
        for what, words in said.items():
            groups: dict[str, list[str]] = {}
            for row in of_pair:
                groups.setdefault(words(row), []).append(row.method)
            if len(groups) > 1:
                each = "; ".join(f"{', '.join(names)}: {text}" for text, names in groups.items())
                notes.append(f"{pair[0]} -> {pair[1]}: tuned with different {what} ({each}): not a fair comparison")
    return notes


def default_values(record: Record, options: Iterable[str]) -> dict[str, Any]:
    """The values that options have without tuning, from the identity of a tuned student: it is that of the default training.

    Args:
        record: Of the training.
        options: Options of the method, or of the training as `training.OPTION`.
    """
    found = {}
    for option in options:
        content: Any = record.identity.parts.get("training" if option.startswith(_TRAINING) else "options")
        for key in option.removeprefix(_TRAINING).split("."):
            content = content.get(key) if isinstance(content, Mapping) else None
        if content is not None and not (isinstance(content, float) and not math.isfinite(content)):
            found[option] = content
    return found


def as_json(rows: Sequence[TunedMethod], gains: Sequence[GainRow]) -> dict[str, Any]:
    """What a leaderboard's JSON says of tuning."""
    return {"tuning": [asdict(each.row) for each in rows], "tuning_gains": [asdict(gain) for gain in gains]}


def _row(key: tuple[str, str, str], record: Record, tuning: TuningRecord) -> TuningRow:
    trials = tuning.trials
    return TuningRow(
        *key,
        default=base_name(key[2]),
        chosen=tuning.chosen,
        settings=tuning.settings,
        score=tuning.score,
        default_score=tuning.default_score,
        default_share=next((trial.share for trial in trials if trial.trial == 0), 1.0),
        trials=len(trials),
        scored=sum(trial.score is not None for trial in trials),
        budget=tuning.budget,
        halving=tuning.halving,
        seed=tuning.seed,
        trial_seed=tuning.trial_seed,
        tasks=sorted({task for trial in trials for task in trial.scores}),
        rule=tuning.rule,
        tokens=_total([trial.tokens for trial in trials]),
        seconds=_total([trial.seconds for trial in trials]),
        uncounted=sum(trial.tokens is None or trial.seconds is None for trial in trials),
        space=tuning.space,
        defaults=default_values(record, tuning.space),
    )


def _total(values: Iterable[Any]) -> Any:
    """The sum of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return round(sum(known), 3) if known else None
