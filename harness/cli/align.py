"""`harness align`: counts the aligned tokens of two tokenizers on a text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import track

from dskd import hub
from dskd.data.sources import rows_named
from dskd.errors import InputError
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.alignment import align_tokenizers
from harness.cli.data_options import SOURCE
from harness.cli.options import PATH, json_option
from harness.runs.store import UserFile


def _texts(source: Path) -> Iterator[str]:
    for where, row in rows_named(source):
        if not isinstance(row.get("text"), str):
            raise InputError(
                f'{where}: no string under "text"; the row has {", ".join(row)}; fix: write each line as {{"text": "…"}}'
            )
        yield row["text"]


TEXT_HELP = (
    'Rows with a column "text": a file, as JSONL with lines {"text": …}, a folder, a pipe, or a data set on the hub.'
)


@click.command(
    name="align",
    epilog="""\b
Examples:
  harness align --teacher models/qwen --student models/gpt2 --text corpus.jsonl
  harness align --teacher Qwen/Qwen2.5-7B --student openai-community/gpt2 --text corpus.jsonl
  harness align --teacher T --student S --text corpus.jsonl --json --pairs-out pairs.jsonl""",
)
@click.option(
    "--teacher",
    required=True,
    type=PATH,
    metavar="DIR|ORG/NAME",
    help="The teacher's tokenizer: a folder, or a name on the hub.",
)
@click.option(
    "--student",
    required=True,
    type=PATH,
    metavar="DIR|ORG/NAME",
    help="The student's tokenizer: a folder, or a name on the hub.",
)
@click.option("--text", required=True, type=PATH, metavar=SOURCE, help=TEXT_HELP)
@click.option("--pairs-out", type=PATH, help='Also write each document\'s pairs: {"teacher": [i…], "student": [j…]}.')
@json_option
def command(teacher: Path, student: Path, text: Path, pairs_out: Path | None, as_json: bool) -> None:
    """Count the pairs of tokens of two tokenizers that cover the same bytes.

    The aligned share is of the student's tokens. Distillation across vocabularies compares the models at these. Indices refer to
    tokenizer(text, add_special_tokens=False).
    """
    pairs_file = UserFile("--pairs-out", pairs_out) if pairs_out is not None else None
    texts = _texts(text)
    first, second = (
        load_tokenizer(hub.tokenizer_folder(place, where=where))
        for place, where in ((teacher, "--teacher"), (student, "--student"))
    )
    stderr = Console(stderr=True)
    progress = track(texts, "aligning", console=stderr, disable=not stderr.is_terminal, transient=True)
    summary = align_tokenizers(first, second, progress)
    if pairs_file is not None:
        pairs_file.write({"teacher": left, "student": right} for left, right in summary.pairs)
    names = ("documents", "teacher_tokens", "student_tokens", "aligned", "aligned_share", "shared_vocabulary")
    counts = {name: getattr(summary, name) for name in names}
    if as_json:
        click.echo(json.dumps(counts))
        return
    for name, value in counts.items():
        click.echo(f"{name.replace('_', ' '):18} {value:{'.4f' if isinstance(value, float) else ','}}")
