"""`harness gc`: what of a run's folder nothing needs any more, and how large it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.filesize import decimal

from dskd.errors import InputError
from harness.cli.options import PATH, engine_option, json_option, variables_option
from harness.cli.output import print_json, print_table
from harness.config.resolved import RESOLVED
from harness.planning.plan import Plan, make_plan
from harness.planning.references import expected_outputs, references
from harness.runs import garbage
from harness.runs.garbage import Item, Search
from harness.runs.store import RUN, require_writable

EPILOG = """\b
Examples:
  harness gc runs/quick
  harness gc runs/quick --matrix quick --remove
  harness gc runs/mine --matrix my.yaml --cells --unfinished --json

\b
Nothing is removed without --remove. Never removed: records and students of the matrix's cells, baselines, what lies behind
links, what a running job uses. What refers to what: docs/run-folders.md."""

# Of these there may be thousands, each small: a line for all.
_TOGETHER = ("temporary", "spec", "job state", "lock")


@click.command("gc", epilog=EPILOG)
@click.argument("folder", type=PATH, metavar="DIR")
@click.option(
    "--matrix",
    "matrices",
    multiple=True,
    metavar="NAME|FILE",
    help="A matrix that is run in DIR; repeatable. Added to the one that DIR holds.",
)
@variables_option
@click.option("--add-method", "add_methods", multiple=True, metavar="NAME", help="As it was given to `harness run`.")
@engine_option
@click.option("--cells", is_flag=True, help="Also evaluations of cells that are in no matrix of the run.")
@click.option("--students", is_flag=True, help="With --cells: also the trainings of these cells, students included.")
@click.option(
    "--unfinished", is_flag=True, help="Also checkpoints of failed and interrupted trainings, which then begin anew."
)
@click.option("--rollouts", is_flag=True, help="Also the texts that students wrote in finished on-policy trainings.")
@click.option("--remove", is_flag=True, help="Remove what is listed.")
@json_option
def command(
    folder: Path,
    matrices: Sequence[str],
    variables: Mapping[str, str],
    add_methods: Sequence[str],
    engine: str | None,
    cells: bool,
    students: bool,
    unfinished: bool,
    rollouts: bool,
    remove: bool,
    as_json: bool,
) -> None:
    """List what of the run in DIR nothing refers to, and how large it is; remove it with --remove."""
    _require_run(folder)
    own = [str(folder / RESOLVED)] if (folder / RESOLVED).is_file() else []
    asked = [*dict.fromkeys((*own, *matrices))]
    if not asked and ((folder / RUN).is_file() or cells):
        raise InputError(f"{folder}: does not hold its matrix; fix: give --matrix NAME|FILE, as it was run")
    if students and not cells:
        raise InputError("--students: is for the students of cells in no matrix; fix: add --cells")
    plans = [
        make_plan(name, output_dir=folder, variables=variables, add_methods=add_methods, engine=engine)
        for name in asked
    ]
    dropped = _dropped(folder, plans, students=students, unfinished=unfinished) if cells else set()
    kept = references(folder, plans, dropped)
    items = Search(folder, kept, unfinished=unfinished, rollouts=rollouts, dropped=dropped).run()
    stays: list[str] = []
    if remove:
        require_writable(folder, str(folder))
        stays = garbage.remove(folder, items)
    total = sum(item.size for item in items)
    if as_json:
        document = {"run": str(folder), "matrices": asked, "bytes": total, "removed": remove, "stays": stays}
        print_json(document | {"items": [_as_json(item) for item in items]})
        return
    _print(items, total, removed=remove)
    for line in stays:
        click.echo(line, err=True)
    if not remove and (jobs := garbage.running(folder)):
        click.echo(f"A job is running there ({jobs[0]}): --remove waits for no job and refuses.", err=True)


def _require_run(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; fix: give the folder of a run")
    if not (folder / RUN).is_file() and not (folder / ".harness").is_dir():
        raise InputError(f"{folder}: is no folder of a run (no {RUN}, no .harness); fix: give one, as runs/NAME")


def _dropped(folder: Path, plans: Sequence[Plan], *, students: bool, unfinished: bool) -> set[str]:
    """The outputs of cells in no matrix that may go: evaluations, and trainings as far as they are asked for."""
    expected = expected_outputs(folder, plans)
    dropped = set()
    for output in garbage.outputs_under(folder, "cells"):
        place = folder / output
        if output in expected:
            continue
        if output.endswith("/train"):
            if (place / "model").exists() and not students:
                continue
            if (place / "checkpoints").exists() and not unfinished:
                continue
        dropped.add(output)
    return dropped


def _as_json(item: Item) -> dict[str, Any]:
    values = asdict(item)
    return {"kind": item.kind, "path": item.path, "bytes": values["size"], "why": item.why}


def _print(items: Sequence[Item], total: int, *, removed: bool) -> None:
    if not items:
        click.echo("Nothing: all that is there is needed.")
        return
    rows: list[tuple[str, str, str, str]] = [
        (item.kind, item.path, decimal(item.size), item.why) for item in items if item.kind not in _TOGETHER
    ]
    for kind in _TOGETHER:
        those = [item for item in items if item.kind == kind]
        if len(those) > 1:
            reasons = "; ".join(dict.fromkeys(item.why for item in those))
            rows.append((kind, f"{len(those)} of them", decimal(sum(item.size for item in those)), reasons))
        elif those:
            rows.append((kind, those[0].path, decimal(those[0].size), those[0].why))
    print_table(("kind", "path", "size", "why"), rows)
    count = f"{len(items)} thing{'s' * (len(items) != 1)}, {decimal(total)}"
    click.echo(f"\nRemoved: {count}." if removed else f"\nTogether: {count}. Nothing was removed; --remove does it.")
