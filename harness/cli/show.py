"""`harness show`: one cell in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from dskd.errors import InputError

EPILOG = """\b
Examples:
  harness show small-teacher__small-student/kd/seed1
  harness show small-teacher/teacher --results runs/quick --json

\b
A cell is <teacher>__<student>/<method>/seed<k>, or <teacher>/teacher; `harness plan` lists them."""


@click.command("show", epilog=EPILOG)
@click.argument("cell")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The run's folder; the only one under runs/ unless given.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(cell: str, results: Path | None, as_json: bool) -> None:
    """Show what a cell is, how it stands, its scores, and where its files are."""
    root = results or _only_run()
    folder = _find(root, cell.strip("/"))
    described = describe(folder, cell.strip("/"))
    if as_json:
        click.echo(json.dumps(described, indent=2, ensure_ascii=False))
        return
    for part in described["parts"]:
        click.echo(f"{part['title']}: {part['state']}")
        for name in ("error", "scores", "overlap", "cost", "made_from", "identity", "folder"):
            if part[name]:
                click.echo(f"  {name.replace('_', ' ')}: {_text(part[name])}")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _only_run() -> Path:
    found = sorted(path.parent for path in Path("runs").glob("*/run.json"))
    if len(found) == 1:
        return found[0]
    listing = ", ".join(map(str, found)) or "none"
    raise InputError(f"--results: say which run; under runs/ there are: {listing}")


def _find(root: Path, cell: str) -> Path:
    from harness.suggestions import did_you_mean

    if not (root / "cells").is_dir():
        raise InputError(f"--results {root}: holds no cells; give the folder of a run")
    folder = root / "cells" / cell
    known = {
        str(path.parent.relative_to(root / "cells"))
        for name in ("train", "eval")
        for path in (root / "cells").glob(f"*/**/{name}")
        if path.is_dir() and path.parent.name != "train"
    }
    if cell not in known:
        raise InputError(f"no cell '{cell}' in {root}{did_you_mean(cell, known)}")
    return folder


def describe(folder: Path, cell: str) -> dict[str, Any]:
    """A cell's training and evaluations, each with its state, identity, scores, cost and folder.

    A damaged record leaves its part without scores and with what is wrong as its error.
    """
    from harness.runs.records import read_record
    from harness.runs.store import MANIFEST, RESULT, OutputFolder

    parts = []
    for path in sorted(folder.glob(f"train/{MANIFEST}")) + sorted(folder.glob(f"eval/*/{MANIFEST}")):
        output = OutputFolder(path.parent)
        state, manifest = output.state()
        if manifest is None:
            continue
        record, error = None, manifest.error
        if (path.parent / RESULT).is_file():
            try:
                record = read_record(path.parent / RESULT)
            except ValueError as damage:
                error = str(damage)
        task = path.parent.name if path.parent.parent.name == "eval" else None
        parts.append(
            {
                "title": f"{manifest.kind} {task}" if task else manifest.kind,
                "state": state,
                "error": error,
                "scores": {
                    name: {"value": metric.value, "ci95": list(metric.ci95) if metric.ci95 else None}
                    for name, metric in record.metrics.items()
                }
                if record
                else {},
                "overlap": [entry.model_dump(exclude_none=True) for entry in record.overlap or ()] if record else [],
                "cost": record.cost.model_dump(exclude_none=True) if record else {},
                "made_from": _made_from(manifest.identity.parts),
                "identity": manifest.identity.hash,
                "folder": str(path.parent),
            }
        )
    return {"cell": cell, "parts": parts}


def _made_from(parts: dict[str, Any]) -> dict[str, Any]:
    """The settings themselves; what the inputs were made from stands in manifest.json."""
    inputs = {"student", "teacher", "model", "data", "world", "code"}
    return {key: value for key, value in parts.items() if key not in inputs}
