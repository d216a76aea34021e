"""`harness leaderboard`: prints the records of a run as a table."""

from __future__ import annotations

import json
from pathlib import Path

import click

from dskd.errors import InputError
from harness.claims import render as claims_text
from harness.claims.answers import answer_claims
from harness.claims.claims_file import read_claims, shipped_claims
from harness.cli.options import PATH
from harness.published import tables_of
from harness.results.export import is_export, joined, read_export, write_export
from harness.results.item_scores import Results
from harness.results.load import load_results
from harness.results.run_file import missing_records
from harness.runs.store import write_text_atomic
from harness.tables.leaderboard import make_leaderboard
from harness.tables.reasoning import token_rows
from harness.tables.render import FORMATS
from harness.tables.rows import Leaderboard
from harness.tables.trials import TRIAL_FORMATS

EPILOG = """\b
Examples:
  harness leaderboard runs/quick
  harness leaderboard runs/quick --costs --format csv > scores.csv
  harness leaderboard runs/tuned --tuning
  harness leaderboard runs/tuned --trials --format csv > trials.csv
  harness leaderboard runs/quick --export results/quick
  harness leaderboard runs/rest --export results/quick --add
  harness leaderboard results/quick --write
  harness leaderboard results/quick --check

\b
The table depends on the records only: result.json and samples.jsonl under DIR, or an export of them."""

# The files of --write, with their formats. Of tuned methods there is also trials.csv, and for each file of claims that has records for
# one of them claims-NAME.md and claims-NAME.json.
WRITTEN = {"README.md": "md", "leaderboard.csv": "csv", "leaderboard.tex": "tex", "leaderboard.json": "json"}

FORMAT = click.Choice(list(FORMATS))
CHECK_HELP = (
    "Exit with 1 if a record is missing, unreadable or failed, or if an exported folder's generated files are out of date "
    "(run --write)."
)


@click.command("leaderboard", epilog=EPILOG)
@click.argument("folder", required=False, type=PATH, metavar="DIR")
@click.option("--results", type=PATH, hidden=True, help="The same as DIR.")
@click.option("--format", "form", default="md", show_default=True, type=FORMAT, help="Output format.")
@click.option("--costs", is_flag=True, help="Also show the cost of training: time, teacher time, tokens/s, memory.")
@click.option("--tuning", is_flag=True, help="Also show what tuning gave, what was chosen, and what the trials cost.")
@click.option("--trials", is_flag=True, help="Show the trials of all tuned methods instead, the best first.")
@click.option("--published", is_flag=True, help="Also show published results for these pairs, in separate tables.")
@click.option("--export", type=PATH, metavar="FOLDER", help="Write the records as text files to commit.")
@click.option("--add", is_flag=True, help="With --export: keep the records there of cells that DIR does not have.")
@click.option(
    "--write", is_flag=True, help="Write README.md, csv, tex, json, trials and claims into an exported folder."
)
@click.option("--check", is_flag=True, help=CHECK_HELP)
@click.pass_context
def command(
    context: click.Context,
    folder: Path | None,
    results: Path | None,
    form: str,
    costs: bool,
    tuning: bool,
    trials: bool,
    published: bool,
    export: Path | None,
    add: bool,
    write: bool,
    check: bool,
) -> None:
    """Print the table of the records in DIR: a run, a folder of several runs, or an export."""
    if (folder is None) == (results is None):
        raise InputError("leaderboard: expected one folder; fix: give DIR")
    root = folder or results
    assert root is not None
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; fix: give the folder of a run")
    if write and not is_export(root):
        raise InputError(f"--write: {root} is not an export; fix: use --export FOLDER first, then --write there")
    if add and (export is None or not is_export(export)):
        raise InputError("--add: needs an export to add to; fix: --export FOLDER of one, or leave --add out")
    if published and (write or check or export is not None):
        raise InputError("--published: only for printing; fix: omit --write, --check and --export")
    if trials and (costs or tuning or published or write or check or export is not None):
        raise InputError("--trials: prints other tables; fix: give it with --format alone")
    loaded = load_results(root)
    board = make_leaderboard(loaded.records, loaded.items)
    problems = [*loaded.problems, *(_check(root, loaded, board) if check and not write else [])]
    if not loaded.records and not problems:
        raise InputError(f"{root}: holds no records; fix: give the folder of a run")
    if export is not None:
        if add:
            loaded, changed = joined(read_export(export), loaded)
            for line in changed:
                click.echo(f"changed: {line}", err=True)
        write_export(loaded, export)
        click.echo(f"{len(loaded.records)} records, {len(loaded.items)} with item scores: {export}", err=True)
    elif trials:
        if not board.tuning:
            raise InputError(
                f"--trials: {root} holds no tuned method; fix: add `tuning` to the matrix (docs/tuning.md)"
            )
        click.echo(TRIAL_FORMATS[form](board.tuning), nl=False)
    elif write:
        files = _files(board, loaded)
        for name, text in files.items():
            write_text_atomic(root / name, text)
        click.echo(f"written: {', '.join(files)} in {root}", err=True)
    else:
        if published:
            board.published = tables_of(board.pairs)
            if not board.published:
                click.echo("no published results for these pairs; see `harness list published`", err=True)
        board.tuning_tables = tuning
        if tuning and not board.tuning:
            click.echo("no method of this run was tuned; see docs/tuning.md", err=True)
        board.tokens = token_rows(board, loaded.records) if form == "json" else []
        click.echo(FORMATS[form](board, costs), nl=False)
    for problem in problems:
        click.echo(f"problem: {problem}", err=True)
    if problems and (check or export is not None):
        context.exit(1)


def _files(board: Leaderboard, loaded: Results) -> dict[str, str]:
    """The files of --write: {name: text}."""
    board.tuning_tables = True
    files = {name: FORMATS[form](board, True) for name, form in WRITTEN.items()}
    if board.tuning:
        files["trials.csv"] = TRIAL_FORMATS["csv"](board.tuning)
    for name, path in shipped_claims().items():
        answers = answer_claims(read_claims(path, tuned=None if board.tuning else False), loaded)
        if any(claim.answer != "no records" for claim in answers.claims):
            files[f"claims-{name}.md"] = claims_text.markdown(answers)
            files[f"claims-{name}.json"] = (
                json.dumps(claims_text.document(answers), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            )
    return files


def _check(root: Path, loaded: Results, board: Leaderboard) -> list[str]:
    if is_export(root):
        return _differences(root, _files(board, loaded))
    failed = [record for record in loaded.records if record.status == "failed"]
    return missing_records(root) + [
        f"{r.cell.teacher} {r.cell.student or ''} {r.cell.method} {r.cell.column or 'training'}: failed: {r.error}"
        for r in failed
    ]


def _differences(root: Path, files: dict[str, str]) -> list[str]:
    """The first line in which a generated file is out of date."""
    for name, text in files.items():
        path = root / name
        if not path.is_file():
            return [f"{path}: is missing; fix: --write"]
        actual, expected = path.read_text(encoding="utf-8").splitlines(), text.splitlines()
        for number in range(max(len(actual), len(expected))):
            lines = [each[number] if number < len(each) else "no line" for each in (actual, expected)]
            if lines[0] != lines[1]:
                return [f"{path}:{number + 1}: {lines[0][:80]!r}, and the records give {lines[1][:80]!r}; fix: --write"]
    return []
