"""`harness card`: the model card of a student."""

from __future__ import annotations

from pathlib import Path

import click

from dskd.errors import InputError
from dskd.io import write_atomic
from harness.cli.options import PATH
from harness.cli.show import find_cell, only_run
from harness.publish.card import card_text
from harness.publish.files import CARD
from harness.publish.licenses import with_hub_licenses
from harness.publish.student import Student, model_folder_in, read_student

EPILOG = """\b
Examples:
  harness card small-teacher__small-student/kd/seed1 --run runs/quick
  harness card out --to my-org/my-student --license apache-2.0
  harness card out --run runs/student --write

\b
A cell is <teacher>__<student>/<method>/seed<k> of a run; a folder is what `harness train` or a run has written, or its model.
`harness push` uploads README.md of the student's folder where there is one: write it, edit it, then push."""

STUDENT = click.argument("student", metavar="CELL|FOLDER")
RUN = click.option(
    "--run", type=PATH, metavar="DIR", help="Run with the student's evaluations. Default: the one that it is in."
)
LICENSE = click.option(
    "--license", metavar="ID", help="Licence of the student, as the hub calls it. Default: that of its base model."
)


@click.command("card", epilog=EPILOG)
@STUDENT
@RUN
@click.option("--to", "repository", metavar="ORG/NAME", help="Name that it will have on the hub.")
@LICENSE
@click.option("--write", is_flag=True, help="Write it to README.md in the student's folder instead of printing it.")
@click.option("--overwrite", is_flag=True, help="Replace a README.md that is there.")
def command(
    student: str, run: Path | None, repository: str | None, license: str | None, write: bool, overwrite: bool
) -> None:
    """Print the model card of a student: what it was made of, its scores, cost and licences, and how to use it."""
    found = find_student(student, run)
    text = card_text(found, repository, license)
    if not write:
        click.echo(text, nl=False)
        return
    place = found.folder / CARD
    if place.exists() and not overwrite:
        raise InputError(f"{place}: exists; fix: --overwrite to replace it, or edit it by hand")
    write_atomic(place, text)
    click.echo(place)


def find_student(given: str, run: Path | None) -> Student:
    """The student of a cell or in a folder, with the licences that the hub knows."""
    if Path(given).is_dir():
        student = read_student(model_folder_in(Path(given)), run)
    else:
        cell = find_cell(run or only_run(), given.strip("/"))
        student = read_student(model_folder_in(cell), run)
    known = with_hub_licenses(student.provenance)
    return Student(student.folder, known, student.record, student.report, student.scores)
