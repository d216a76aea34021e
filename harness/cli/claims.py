"""`harness claims`: answers published claims from records."""

from __future__ import annotations

import json
from pathlib import Path

import click

from dskd.errors import InputError
from harness.claims import render
from harness.claims.answers import answer_claims
from harness.claims.claims_file import DEFAULT, find_claims, read_claims
from harness.claims.rows import Answers
from harness.cli.options import FILE, PATH, json_option
from harness.cli.output import print_json, print_table
from harness.results.load import load_results
from harness.results.run_file import run_matrices

EPILOG = """\b
Examples:
  harness claims --results runs/tuned
  harness claims --results results/leaderboard --claims ours
  harness claims --results runs/quick --untuned
  harness claims --results runs/tuned --claims mine.yaml --json > claims.json
  harness claims --results runs/tuned --check claims.json

\b
A claim holds, fails, is undecided, or has no records. What is not significant is undecided (docs/claims.md)."""


@click.command("claims", epilog=EPILOG)
@click.option(
    "--results", type=PATH, required=True, metavar="DIR", help="A run, a folder of several runs, or an export."
)
@click.option(
    "--claims",
    "named",
    default=DEFAULT,
    show_default=True,
    metavar="FILE",
    help="A file of claims, or the name of one that ships: referee, published, ours, parts.",
)
@click.option("--untuned", is_flag=True, help="Ask about default settings, whatever the file says.")
@json_option
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown.")
@click.option(
    "--check",
    "expected",
    type=FILE,
    metavar="EXPECTED.json",
    help="Exit with 1 if an answer differs from this file, which --json wrote.",
)
@click.pass_context
def command(
    context: click.Context,
    results: Path,
    named: str,
    untuned: bool,
    as_json: bool,
    as_markdown: bool,
    expected: Path | None,
) -> None:
    """Answer published claims from the records of a run: holds, fails, undecided, or no records.

    The exit code is 0 for any answer.
    """
    if as_json and as_markdown:
        raise InputError("--json and --markdown: only one of the two; fix: leave one out")
    if not results.is_dir():
        raise InputError(f"--results {results}: no such folder; fix: give that of a run or an export")
    wanted = None if expected is None else _expected(expected)
    claims = read_claims(find_claims(named), tuned=False if untuned else None)
    loaded = load_results(results)
    for problem in loaded.problems:
        click.echo(f"problem: {problem}", err=True)
    if not loaded.records and not loaded.problems:
        raise InputError(f"--results {results}: holds no records; fix: give the folder of a run or an export")
    answers = answer_claims(claims, loaded, run_matrices(results))
    if as_json:
        print_json(render.document(answers))
    elif as_markdown:
        click.echo(render.markdown(answers), nl=False)
    else:
        _print(answers)
    if wanted is not None:
        differing = _differences(answers, wanted)
        for line in differing:
            click.echo(f"differs: {line}", err=True)
        if differing:
            context.exit(1)


def _print(answers: Answers) -> None:
    print_table(render.HEADER, render.rows(answers))
    click.echo(f"\n{render.legend(answers)}")
    for lines_of in (render.reasons, render.missing):
        for line in (line for claim in answers.claims for line in lines_of(claim)):
            click.echo(line)
    click.echo()
    for line in render.statements(answers):
        click.echo(line)
    for note in answers.notes:
        click.echo(f"note: {note}", err=True)


def _expected(path: Path) -> dict[str, str]:
    """{id: answer} of a file that --json wrote. InputError for another file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema_version"] != render.SCHEMA_VERSION:
            raise ValueError(f"schema_version {content['schema_version']}")
        return {str(claim["id"]): str(claim["answer"]) for claim in content["claims"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--check {path}: is no file of answers ({' '.join(str(error).split())[:80]}); fix: write it with --json"
        ) from None


def _differences(answers: Answers, wanted: dict[str, str]) -> list[str]:
    found: dict[str, str] = {claim.id: claim.answer for claim in answers.claims}
    return [
        f"{name}: {found.get(name, 'not asked')}, expected {wanted.get(name, 'nothing')}"
        for name in dict.fromkeys([*wanted, *found])
        if found.get(name) != wanted.get(name)
    ]
