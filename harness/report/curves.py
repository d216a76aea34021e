"""Learning curves, from the training_log.jsonl of each model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dskd.errors import InputError
from dskd.io import read_objects
from dskd.training.checkpoints import LOG
from harness.report.results import Result

MOST_POINTS = 400
_AXES = ("step", "epoch")


def learning_curves(results: Sequence[Result]) -> tuple[list[dict[str, Any]], list[str]]:
    """The curve of each training, and messages on logs that cannot be read.

    A curve has steps, and for each logged quantity one value per step (null if it was not logged). A log of more than MOST_POINTS steps
    is thinned evenly; the last step stays.
    """
    curves, problems = [], []
    for result in results:
        if not result.is_training:
            continue
        cell = result.record.cell
        try:
            lines = [row for _, row in read_objects(result.folder / "model" / LOG) if isinstance(row.get("step"), int)]
        except InputError:
            problems.append(f"{result.name}: no {LOG} in its model's folder, so there is no learning curve")
            continue
        lines = _thinned(lines)
        names = dict.fromkeys(name for line in lines for name, value in line.items() if _finite(value) is not None)
        series = {name: [_finite(line.get(name)) for line in lines] for name in names if name not in _AXES}
        what = {name: getattr(cell, name) for name in ("teacher", "student", "method", "seed")}
        curves.append({**what, "steps": [line["step"] for line in lines], "series": series})
    return curves, problems


def _thinned(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(lines) <= MOST_POINTS:
        return lines
    return [lines[round(k * (len(lines) - 1) / (MOST_POINTS - 1))] for k in range(MOST_POINTS)]


def _finite(value: Any) -> float | None:
    """A finite number with five digits, which is more than a plot shows; otherwise None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.5g}")
