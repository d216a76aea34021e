"""`harness report`: writes a run as one HTML page."""

from __future__ import annotations

import os
from pathlib import Path

import click

from dskd.errors import InputError
from harness.claims.claims_file import find_claims
from harness.cli.options import PATH
from harness.report.document import make_document
from harness.report.page import render
from harness.runs.store import require_writable, write_text_atomic

EPILOG = """\b
Examples:
  harness report runs/quick
  harness report runs/quick --output quick.html --anchor kd
  harness report runs/a runs/b --output both.html

\b
The page needs no network and no other file (docs/report.md). It depends on the run folders only."""


@click.command("report", epilog=EPILOG)
@click.argument("runs", nargs=-1, type=PATH, metavar="RUN...")
@click.option("--results", "more", multiple=True, type=PATH, hidden=True, help="The same as RUN.")
@click.option(
    "--output", type=PATH, default="report.html", show_default=True, metavar="FILE", help="The page to write."
)
@click.option("--anchor", default="sft", show_default=True, metavar="METHOD", help="Method to compare the others with.")
@click.option(
    "--claims",
    metavar="FILE",
    help="Claims to answer from the records, or the name of a file of them that ships. Else, referee is answered if it can be.",
)
@click.option(
    "--max-answers",
    type=click.IntRange(min=0),
    default=20_000,
    show_default=True,
    metavar="N",
    help="About the most completions on the page. If there are more, evenly chosen prompts of every task are shown.",
)
def command(
    runs: tuple[Path, ...], more: tuple[Path, ...], output: Path, anchor: str, claims: str | None, max_answers: int
) -> None:
    """Write one or several runs as one HTML page: tables, plots, and all completions side by side."""
    if not (roots := [*runs, *more]):
        raise InputError("report: no run; fix: give the folder of a run, as harness report runs/NAME")
    if output.is_dir():
        raise InputError(f"--output {output}: is a folder; fix: name a file, as {output / 'report.html'}")
    target = Path(os.path.realpath(output))
    require_writable(target.parent, f"--output {output}")
    asked = None if claims is None else find_claims(claims)
    document, samples = make_document(roots, anchor=anchor, most_completions=max_answers, claims=asked)
    write_text_atomic(target, render(document, samples))
    for problem in document["problems"]:
        click.echo(f"problem: {problem}", err=True)
    if document["missing"]:
        click.echo(f"problem: {len(document['missing'])} records of the run are missing; the page lists them", err=True)
    click.echo(output)
