"""`harness leaderboard`: records to a table."""

from __future__ import annotations

from pathlib import Path

import click

from dskd.errors import InputError

EPILOG = """\b
Examples:
  harness leaderboard --results runs/quick
  harness leaderboard --results runs/quick --costs --format csv > scores.csv
  harness leaderboard --results results/records --check

\b
The table is a function of the records (result.json files under DIR) alone."""


@click.command("leaderboard", epilog=EPILOG)
@click.option(
    "--results",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A run's folder, or one of several.",
)
@click.option(
    "--format",
    "form",
    default="md",
    show_default=True,
    type=click.Choice(["md", "csv", "tex", "html", "json"]),
    help="How to print it.",
)
@click.option(
    "--costs", is_flag=True, help="Also what the trainings took: their time, the teacher's, tokens/s, memory."
)
@click.option("--check", is_flag=True, help="Exit with 1 if a record is missing, broken, or of a failure.")
@click.pass_context
def command(context: click.Context, results: Path, form: str, costs: bool, check: bool) -> None:
    """Print the table of the records in a folder."""
    from harness.run_file import load_records, missing_records
    from harness.tables.leaderboard import make_leaderboard
    from harness.tables.render import FORMATS

    if not results.is_dir():
        raise InputError(f"--results {results}: no such folder; give the folder of a run")
    records, problems = load_records(results)
    failed = [
        f"{record.cell.teacher} {record.cell.student or ''} {record.cell.method} {record.cell.column or 'training'}: failed: "
        f"{record.error}"
        for record in records
        if record.status == "failed"
    ]
    if check:
        problems += missing_records(results) + failed
    if not records and not problems:
        raise InputError(f"--results {results}: holds no records; give the folder of a run")
    click.echo(FORMATS[form](make_leaderboard(records), costs), nl=False)
    for problem in problems:
        click.echo(f"problem: {problem}", err=True)
    if check and problems:
        context.exit(1)
