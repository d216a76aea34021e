"""`harness show`: describes one cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dskd.errors import InputError
from harness import tasks
from harness.cli.options import PATH, json_option
from harness.cli.output import print_json
from harness.runs.records import Record, read_record
from harness.runs.store import MANIFEST, RESULT, OutputFolder
from harness.suggestions import did_you_mean
from harness.tables.reasoning import tokens_of
from harness.tables.setting_text import budget_text, settings_text

EPILOG = """\b
Examples:
  harness show small-teacher__small-student/kd/seed1
  harness show small-teacher/teacher --results runs/quick --json

\b
A cell is <teacher>__<student>/<method>/seed<k>, or <teacher>/teacher; `harness plan` lists them."""

# Settings of the inputs, which are in manifest.json.
_INPUTS = {"student", "teacher", "model", "data", "world", "code"}


@click.command("show", epilog=EPILOG)
@click.argument("cell")
@click.option("--results", type=PATH, metavar="DIR", help="The folder of the run. Default: the only run under runs/.")
@json_option
def command(cell: str, results: Path | None, as_json: bool) -> None:
    """Show the state, scores, settings and files of a cell."""
    root = results or only_run()
    folder = find_cell(root, cell.strip("/"))
    described = describe(folder, cell.strip("/"))
    if as_json:
        print_json(described)
        return
    for part in described["parts"]:
        click.echo(f"{part['title']}: {part['state']}")
        for name in (
            "error",
            "scores",
            "tokens",
            "reasoning",
            "contamination",
            "validation",
            "losses",
            "teachers",
            "cost",
            "tuning",
            "made_from",
            "identity",
            "folder",
        ):
            if part[name]:
                click.echo(f"  {name.replace('_', ' ')}: {_text(part[name])}")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, float):
        return f"{value:.5g}"
    return ", ".join(map(_text, value)) if isinstance(value, (list, tuple)) else str(value)


def only_run() -> Path:
    """The only run under runs/. InputError where there is none, or several."""
    runs = sorted(path.parent for path in Path("runs").glob("*/run.json"))
    if len(runs) == 1:
        return runs[0]
    raise InputError(f"--results: is missing; fix: name a run (under runs/: {', '.join(map(str, runs)) or 'none'})")


def find_cell(root: Path, cell: str) -> Path:
    """The folder of a cell in a run. InputError where it has none of this name."""
    if not (root / "cells").is_dir():
        raise InputError(f"--results {root}: holds no cells; fix: give the folder of a run")
    folder = root / "cells" / cell
    cells = {
        str(path.parent.relative_to(root / "cells"))
        for name in ("train", "eval")
        for path in (root / "cells").glob(f"*/**/{name}")
        if path.is_dir() and path.parent.name != "train"
    }
    if cell not in cells:
        raise InputError(f"{root}: no cell '{cell}'{did_you_mean(cell, cells)}")
    return folder


def describe(folder: Path, cell: str) -> dict[str, Any]:
    """The training and evaluations of a cell, each with its state, identity, scores, cost and folder.

    A part with a damaged record has no scores, and the damage as its error.
    """
    parts = []
    for path in sorted(folder.glob(f"train/{MANIFEST}")) + sorted(folder.glob(f"eval/*/{MANIFEST}")):
        output = OutputFolder(path.parent)
        state, manifest = output.state()
        if manifest is None:
            continue
        record, error, said = None, manifest.error, manifest.report or {}
        if (path.parent / RESULT).is_file():
            try:
                record = read_record(path.parent / RESULT)
            except ValueError as damage:
                error = str(damage)
        task = path.parent.name if path.parent.parent.name == "eval" else None
        metrics, overlap = (record.metrics, record.overlap or ()) if record else ({}, ())
        parts.append(
            {
                "title": f"{manifest.kind} {task}" if task else manifest.kind,
                "state": state,
                "error": error,
                "scores": {name: {"value": metric.value, "ci95": metric.ci95} for name, metric in metrics.items()},
                "reasoning": record.reasoning.model_dump(exclude_none=True) if record and record.reasoning else {},
                "tokens": _tokens(record),
                "contamination": [entry.model_dump(exclude_none=True) for entry in overlap],
                "validation": _validation(record),
                "losses": {name: value for name, value in (said.get("losses") or {}).items() if value is not None},
                "teachers": said.get("teachers") or {},
                "cost": record.cost.model_dump(exclude_none=True) if record else {},
                "tuning": _tuning(record),
                "made_from": {key: value for key, value in manifest.identity.parts.items() if key not in _INPUTS},
                "identity": manifest.identity.hash,
                "folder": str(path.parent),
            }
        )
    return {"cell": cell, "parts": parts}


def _validation(record: Record | None) -> str | None:
    """The rows that settings may be chosen by for the task of an evaluation, none of which it is tested on."""
    try:
        return None if record is None or record.cell.task is None else tasks.load(record.cell.task).validation
    except InputError:  # a task of a package that is not here any more
        return None


def _tuning(record: Record | None) -> dict[str, Any]:
    """How the setting of a student was chosen, which is not in what it was made from: that is known before any trial."""
    tuning = record.tuning if record is not None else None
    if tuning is None:
        return {}
    return {
        "chosen": settings_text(tuning.settings),
        "trial": tuning.chosen,
        "trials": len(tuning.trials),
        "budget": budget_text(tuning.budget, halving=tuning.halving),
        "validation_score": tuning.score,
        "default_validation_score": tuning.default_score,
    }


def _tokens(record: Record | None) -> dict[str, Any]:
    """What was generated for a score: tokens per item and per solved item, and the share that a limit cut off."""
    if record is None or record.cell.task is None or record.status != "done":
        return {}
    row = tokens_of([record])
    each = "sample" if row.solved == "sample" else "item"
    found = {
        f"per_{each}": row.tokens,
        f"per_solved_{each}": row.tokens_per_solved,
        "truncated_share": row.truncated_share,
    }
    return {key: value for key, value in found.items() if value is not None}
