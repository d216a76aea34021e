"""`harness leaderboard`: records to a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dskd.errors import InputError

if TYPE_CHECKING:
    from harness.results.load import Results
    from harness.tables.leaderboard import Leaderboard

EPILOG = """\b
Examples:
  harness leaderboard runs/quick
  harness leaderboard runs/quick --costs --format csv > scores.csv
  harness leaderboard runs/quick --export results/quick
  harness leaderboard results/quick --write
  harness leaderboard results/quick --check

\b
The table is a function of the records alone: result.json and samples.jsonl under DIR, or what --export made of them."""

# What --write puts beside exported records: the table in each of these forms.
WRITTEN = {"README.md": "md", "leaderboard.csv": "csv", "leaderboard.tex": "tex", "leaderboard.json": "json"}


@click.command("leaderboard", epilog=EPILOG)
@click.argument("folder", required=False, type=click.Path(path_type=Path), metavar="[DIR]")
@click.option("--results", type=click.Path(path_type=Path), metavar="DIR", help="The same as DIR.")
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
@click.option(
    "--published",
    is_flag=True,
    help="Also what others report for these pairs, in tables of their own with source and protocol, never ranked.",
)
@click.option(
    "--export", type=click.Path(path_type=Path), metavar="FOLDER", help="Write the records in a form to commit."
)
@click.option("--write", is_flag=True, help="Write README.md, csv, tex and json beside exported records.")
@click.option(
    "--check",
    is_flag=True,
    help="Exit with 1 if a record is missing, broken or of a failure; of exported records, if what --write would write differs.",
)
@click.pass_context
def command(
    context: click.Context,
    folder: Path | None,
    results: Path | None,
    form: str,
    costs: bool,
    published: bool,
    export: Path | None,
    write: bool,
    check: bool,
) -> None:
    """Print the table of the records in a folder: that of a run, or one of several, or of exported records."""
    from harness.published import tables_of
    from harness.results.export import is_committed, write_committed
    from harness.results.load import load_results
    from harness.tables.leaderboard import make_leaderboard
    from harness.tables.render import FORMATS

    if (folder is None) == (results is None):
        raise InputError("leaderboard: give one folder, as DIR or with --results")
    root = folder or results
    assert root is not None
    if not root.is_dir():
        raise InputError(f"--results {root}: no such folder; give the folder of a run")
    if write and not is_committed(root):
        raise InputError(f"--write: {root} holds no exported records; fix: --export FOLDER first, then --write there")
    if published and (write or check or export is not None):
        raise InputError("--published: only for printing; fix: leave out --write, --check and --export")
    found = load_results(root)
    board = make_leaderboard(found.records, found.items)
    problems = [*found.problems, *(_check(root, found, board) if check and not write else [])]
    if not found.records and not problems:
        raise InputError(f"--results {root}: holds no records; give the folder of a run")
    if export is not None:
        write_committed(found, export)
        click.echo(f"{len(found.records)} records, {len(found.items)} with scores of items: {export}", err=True)
    elif write:
        from harness.runs.store import write_text_atomic

        for name, text in _files(board).items():
            write_text_atomic(root / name, text)
        click.echo(f"written: {', '.join(WRITTEN)} in {root}", err=True)
    else:
        if published:
            board.published = tables_of(board.pairs)
            if not board.published:
                click.echo(
                    "no published numbers of these pairs are known; `harness list published` shows whose are", err=True
                )
        click.echo(FORMATS[form](board, costs), nl=False)
    for problem in problems:
        click.echo(f"problem: {problem}", err=True)
    if problems and (check or export is not None):
        context.exit(1)


def _files(board: Leaderboard) -> dict[str, str]:
    from harness.tables.render import FORMATS

    return {name: FORMATS[form](board, True) for name, form in WRITTEN.items()}


def _check(root: Path, found: Results, board: Leaderboard) -> list[str]:
    from harness.results.export import is_committed
    from harness.results.run_file import missing_records

    if is_committed(root):
        return _differences(root, board)
    failed = [record for record in found.records if record.status == "failed"]
    return missing_records(root) + [
        f"{r.cell.teacher} {r.cell.student or ''} {r.cell.method} {r.cell.column or 'training'}: failed: {r.error}"
        for r in failed
    ]


def _differences(root: Path, board: Leaderboard) -> list[str]:
    """The first line in which a committed file is not what the records give."""
    for name, text in _files(board).items():
        path = root / name
        if not path.is_file():
            return [f"{path}: is missing; fix: --write"]
        there, expected = path.read_text(encoding="utf-8").splitlines(), text.splitlines()
        for number in range(max(len(there), len(expected))):
            lines = [each[number] if number < len(each) else "no line" for each in (there, expected)]
            if lines[0] != lines[1]:
                return [f"{path}:{number + 1}: {lines[0][:80]!r}, and the records give {lines[1][:80]!r}; fix: --write"]
    return []
