"""`harness logs`: the log of a cell, also while it is written."""

from __future__ import annotations

import time
from pathlib import Path

import click

from dskd.errors import InputError
from harness.cli.options import PATH
from harness.cli.show import only_run
from harness.watching.going_on import GoingOn
from harness.watching.logs import Growing, Printable, find, logs_of, tail
from harness.watching.status import read_status

EPILOG = """\b
Examples:
  harness logs small-teacher__small-student/kd/seed1
  harness logs kd/seed1 -f
  harness logs train:small-teacher__small-student/kd/seed1 --lines 20 --output-dir runs/quick

\b
A cell is <teacher>__<student>/<method>/seed<k>, or <teacher>/teacher, or a part of that which only one cell has. A job's id and the
title of a shared artifact, as `harness plan` lists them, do as well."""

_LOOK_SECONDS = 0.3


@click.command("logs", epilog=EPILOG)
@click.argument("cell")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written, until its jobs have ended.")
@click.option(
    "--lines", type=click.IntRange(min=0), default=100, show_default=True, metavar="N", help="Last lines to print."
)
@click.option(
    "--output-dir", type=PATH, metavar="DIR", help="The folder of the run. Default: the only run under runs/."
)
def command(cell: str, follow: bool, lines: int, output_dir: Path | None) -> None:
    """Print the log of what a cell does, or did last: its training, then its evaluations.

    What would act on a terminal, colours and movements of the cursor, is left out.
    """
    root = output_dir or only_run()
    wanted = find(read_status(root), cell)
    goes_on = GoingOn(root, wanted.jobs)
    logs, growing, printable = logs_of(root, wanted), Growing(), Printable()
    if not logs and not (follow and goes_on()):
        raise InputError(
            f"{wanted.name}: has no log, for it has not run yet; fix: harness run, or -f while a run goes on"
        )
    for path in logs[:-1]:
        growing.skip(path, path.stat().st_size)
    if logs:
        shown, end = tail(logs[-1], lines)
        growing.skip(logs[-1], end)
        _heading(logs[-1])
        click.echo(printable.feed(shown), nl=False)
    if not follow:
        click.echo(printable.rest(), nl=False)
        return
    if not logs:
        click.echo(f"{wanted.name}: has not started yet", err=True)
    last = logs[-1] if logs else None
    while True:
        more = goes_on()  # asked before reading, so that nothing is left behind
        for path, content in growing.new(logs_of(root, wanted)):
            if path != last:
                click.echo(printable.rest(), nl=False)
                _heading(path)
                last, printable = path, Printable()
            click.echo(printable.feed(content), nl=False)
        if not more:
            break
        time.sleep(_LOOK_SECONDS)
    click.echo(printable.rest(), nl=False)


def _heading(path: Path) -> None:
    click.echo(f"==> {path} <==", err=True)
