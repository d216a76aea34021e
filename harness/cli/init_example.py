"""`harness init-example`: models and data to try everything with."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli._example_world import write_example
from harness.cli.options import PATH, SEED


@click.command(
    "init-example",
    epilog="""\b
Examples:
  harness init-example example
  harness train --method sft --student example/models/teacher --data example/train/teacher.jsonl --steps 600 --output teacher

The tutorial continues from here: docs/tutorial.md.""",
)
@click.argument("folder", type=PATH)
@click.option("--seed", default=1, show_default=True, type=SEED, help="Seed of the random weights.")
def command(folder: Path, seed: int) -> None:
    """Write a pair of small models and their training data into FOLDER. Nothing is downloaded.

    models/teacher and models/student are Llamas with random weights and tokenizers of two kinds (byte-level BPE, SentencePiece). train/
    has training sets for `harness train`; corpus.jsonl is text for `harness align`. The tasks small_instruct, small_math and small_code
    test what the training sets teach (docs/small-world.md).
    """
    write_example(folder, seed)
    for name in ("models/teacher", "models/student", "train/teacher.jsonl", "train/student.jsonl", "corpus.jsonl"):
        click.echo(folder / name)
