"""`harness push`: a student to the hub."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from harness.cli.card import LICENSE, RUN, STUDENT, find_student
from harness.cli.output import print_table
from harness.publish.card import card_text
from harness.publish.files import CARD, stage
from harness.publish.push import check_name, push

EPILOG = """\b
Examples:
  harness push small-teacher__small-student/kd/seed1 --run runs/quick --to my-org/my-student --dry-run
  harness push small-teacher__small-student/kd/seed1 --run runs/quick --to my-org/my-student
  harness push out --to my-org/my-student --public --license apache-2.0

\b
Uploaded are weights, tokenizer, settings, provenance.json and the card. Checkpoints, logs and projectors are not.
The card is README.md of the student's folder, or the one that `harness card` prints. Log in before: hf auth login."""


@click.command("push", epilog=EPILOG)
@STUDENT
@click.option("--to", "repository", required=True, metavar="ORG/NAME", help="Name of the model on the hub.")
@click.option("--public", is_flag=True, help="Let everybody see it. Default: private.")
@RUN
@LICENSE
@click.option("--overwrite", is_flag=True, help="Replace the model in a repository that exists.")
@click.option("--dry-run", is_flag=True, help="Print the card and the files, and upload nothing.")
def command(
    student: str,
    repository: str,
    public: bool,
    run: Path | None,
    license: str | None,
    overwrite: bool,
    dry_run: bool,
) -> None:
    """Upload a student to the hub with a model card, into a private repository by default."""
    check_name(repository)
    found = find_student(student, run)
    own = found.folder / CARD
    card = own.read_text(encoding="utf-8") if own.is_file() else card_text(found, repository, license)
    with tempfile.TemporaryDirectory() as scratch:
        files = stage(found.folder, card, found.provenance, Path(scratch) / "student")
        if dry_run:
            click.echo(card)
        print_table(("file", "bytes"), ((name, f"{size:,}") for name, size in files.items()))
        visible = "public" if public else "private"
        whole = f"{len(files)} files, {sum(files.values()) / 1e6:,.1f} MB, {visible}"
        if dry_run:
            click.echo(f"Not uploaded: {whole} to {repository}")
            return
        click.echo(f"Uploading {whole}", err=True)
        click.echo(push(Path(scratch) / "student", repository, public=public, overwrite=overwrite))
