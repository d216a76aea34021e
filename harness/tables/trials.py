"""All trials of all methods that were tuned, the best first: `harness leaderboard --trials`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from harness.tables.grid import DASH, Bold, Grid
from harness.tables.grid_formats import html_of, latex_of, markdown_of
from harness.tables.rows import SCHEMA_VERSION
from harness.tables.sensitivity import Sensitivity, sensitivities, value_of
from harness.tables.setting_text import printable, value_text
from harness.tables.tuning_rows import TunedMethod, unequal_budgets
from harness.tuning.records import TrialRecord

_LEGEND = (
    "By the rule, the best first; bold: the trial that was chosen; trial 0 is the default. Steps: the share of them that a trial was "
    "trained for when it was compared last, so scores of different shares do not compare. Score: by the rule; then those of the tasks' "
    "validation items. Tokens and seconds: of training. Sensitivity: r is Spearman's rank correlation of value and place, with its 95 % "
    "interval: above 0, more of it went with a better place; a best value in the middle gives one near 0. Mean rank: 1 is the best."
)


def trial_grids(methods: Sequence[TunedMethod]) -> list[Grid]:
    """A table for each method."""
    return [_grid(method) for method in methods]


def _grid(method: TunedMethod) -> Grid:
    row = method.row
    header = [
        "rank",
        "trial",
        *map(printable, row.space),
        "steps",
        "score",
        *map(printable, row.tasks),
        "tokens",
        "seconds",
    ]
    lines = [[str(place), str(trial.trial), *_cells(method, trial)] for place, trial in enumerate(method.ranking, 1)]
    chosen = [trial.trial == row.chosen for trial in method.ranking]
    lines = [[Bold(cell) for cell in line] if best else line for line, best in zip(lines, chosen, strict=True)]
    said = "; ".join(filter(None, map(_said, sensitivities(method))))
    counted = "" if row.budget.get("trials") == row.trials else f"{row.trials} trials of a budget of "
    title = f"{row.teacher} -> {row.student}, {row.method}: {counted}{row.allowed}"
    return Grid(title, header, lines, f"Sensitivity: {said}." if said else "")


def _cells(method: TunedMethod, trial: TrialRecord) -> list[str]:
    values = [value_of(method, trial, option) for option in method.row.space]
    scores = [trial.score, *(trial.scores.get(task) for task in method.row.tasks)]
    return [
        *("default" if value is None else value_text(value) for value in values),
        f"{trial.share:.0%}",
        *(DASH if score is None else f"{score:.1f}" for score in scores),
        DASH if trial.tokens is None else f"{trial.tokens:,}",
        DASH if trial.seconds is None else f"{trial.seconds:,.1f}",
    ]


def _said(found: Sensitivity) -> str:
    option = printable(found.option)
    if found.scale == "values":
        groups = [f"{value_text(value)} {rank:.1f} (n={n})" for value, rank, n in found.groups]
        return f"{option} mean rank {', '.join(groups)}" if len(groups) > 1 else ""
    if found.correlation is None:
        return ""
    interval = f" [{found.ci95[0]:+.2f}, {found.ci95[1]:+.2f}]" if found.ci95 is not None else ""
    return f"{option} r {found.correlation:+.2f}{interval} (n={found.n})"


def _csv(methods: Sequence[TunedMethod]) -> str:
    """One line per trial; settings and scores of the tasks as JSON."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = ["teacher", "student", "method", "rank", "chosen", *TrialRecord.model_fields]
    writer.writerow(names)
    for method, place, trial in _all(methods):
        row, values = method.row, trial.model_dump(mode="json")
        values |= {name: json.dumps(values[name], ensure_ascii=False) for name in ("settings", "scores")}
        line = [*row.pair, row.method, place, trial.trial == row.chosen, *(values[name] for name in names[5:])]
        writer.writerow(["" if value is None else value for value in line])
    return stream.getvalue()


def _json(methods: Sequence[TunedMethod]) -> str:
    document = {
        "schema_version": SCHEMA_VERSION,
        "methods": [
            {
                **asdict(method.row),
                "ranking": [trial.model_dump(mode="json") for trial in method.ranking],
                "sensitivity": [asdict(each) for each in sensitivities(method)],
            }
            for method in methods
        ],
        "notes": _notes(methods),
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _all(methods: Sequence[TunedMethod]) -> list[tuple[TunedMethod, int, TrialRecord]]:
    return [(method, place, trial) for method in methods for place, trial in enumerate(method.ranking, 1)]


def _shown(write: Callable[[Sequence[Grid], str, Sequence[str]], str]) -> Callable[[Sequence[TunedMethod]], str]:
    def written(methods: Sequence[TunedMethod]) -> str:
        return write(trial_grids(methods), _LEGEND, _notes(methods))

    return written


def _notes(methods: Sequence[TunedMethod]) -> list[str]:
    return unequal_budgets([method.row for method in methods])


TRIAL_FORMATS: dict[str, Callable[[Sequence[TunedMethod]], str]] = {
    "md": _shown(markdown_of), "csv": _csv, "tex": _shown(latex_of), "html": _shown(html_of), "json": _json,
}  # fmt: skip
