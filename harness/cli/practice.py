"""`harness practice`: models and data to try everything with, where one has none yet."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    "practice",
    epilog="""\b
Examples:
  harness practice practice
  harness train --method sft --student practice/models/teacher --data practice/train/teacher.jsonl --steps 600 --output teacher

docs/tutorial.md goes on from here.""",
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seed", default=1, show_default=True, type=click.IntRange(min=0), help="Of the models' random weights.")
def command(folder: Path, seed: int) -> None:
    """Write a pair of small models and text to train them into FOLDER, from nothing: no network, no data set.

    models/teacher and models/student are Llamas of random weights with tokenizers of two kinds (byte-level, and in SentencePiece's
    manner); train/ has training sets with the lines of `harness train`, corpus.jsonl the text for `harness align`. The tasks
    small_instruct, small_math and small_code ask for what the training sets teach (docs/small-world.md).
    """
    from harness.cli._practice_world import write_practice

    write_practice(folder, seed)
    for name in ("models/teacher", "models/student", "train/teacher.jsonl", "train/student.jsonl", "corpus.jsonl"):
        click.echo(folder / name)
