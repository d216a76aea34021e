"""`harness teacher`: a teacher that is somewhere else."""

from __future__ import annotations

import click

from harness.cli.teacher_responses import EPILOG
from harness.cli.teacher_responses import command as responses


@click.group("teacher", epilog=EPILOG)
def command() -> None:
    """Ask a teacher behind an address for responses."""


command.add_command(responses)
