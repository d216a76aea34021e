"""`harness schema`: the JSON Schema of a matrix file, for editors."""

from __future__ import annotations

import json
from pathlib import Path

import click

from dskd.errors import InputError
from dskd.io import write_atomic
from harness import tasks
from harness.cli.options import FILE
from harness.cli.output import print_json
from harness.config.json_schema import matrix_schema
from harness.planning import expand  # noqa: F401 - imports every kind of step
from harness.steps.base import kinds_of_steps

EPILOG = """\b
Examples:
  harness schema --output matrix.schema.json

\b
Editors with yaml-language-server read it where the first line of a matrix is
  # yaml-language-server: $schema=matrix.schema.json
It has the methods and tasks of this installation, those of plugins included."""


@click.command("schema", epilog=EPILOG)
@click.option("--output", type=FILE, metavar="FILE", help="Write it into this file. [default: standard output]")
def command(output: Path | None) -> None:
    """Print the JSON Schema (draft 2020-12) of a matrix file, with which editors complete and check it."""
    schema = matrix_schema(tasks.names(), sorted(kinds_of_steps()))
    if output is None:
        print_json(schema)
        return
    try:
        write_atomic(output, json.dumps(schema, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written ({error.strerror}); fix: name another file") from None
    click.echo(f"Wrote {output}. First line of a matrix: # yaml-language-server: $schema={output}")
