"""The command line: one module per command, imported when it is called."""

from __future__ import annotations

import importlib
import io
import logging
import sys
from functools import partial
from typing import Any

import click

from dskd.errors import InputError, is_disk_full
from harness.runs.failures import ExecutorLost, reason_of

# Command -> its line in `harness --help`, so that help imports no command. The module has the name with _ for -.
COMMANDS = {
    "init": "Write a matrix for two models and a training set, with what fits.",
    "plan": "Show what a run would do, and which results are done or stale.",
    "schema": "Print the JSON Schema of a matrix file, for editors.",
    "lock": "Show the commits of what a run takes from the hub, or move them.",
    "run": "Train and evaluate everything in a matrix, and print the table.",
    "status": "Show where a run is: cells, running jobs, failures, the time left.",
    "logs": "Print the log of a cell, also while it is written.",
    "train": "Train one student on your own models and data.",
    "evaluate": "Evaluate a model folder on tasks.",
    "generate": "Write a model's completions for a task or for your own prompts into a file.",
    "score": "Score a file of completions for a task.",
    "teacher": "Serve a teacher with vLLM, check one that is served, or ask one for responses.",
    "data": "Show training data; verify and download data files of tasks; find test items in training data.",
    "parity": "Check that two engines give the same completions.",
    "align": "Count the aligned tokens of two tokenizers, before any training.",
    "gc": "List what of a run nothing refers to, and how large it is; remove it on request.",
    "leaderboard": "Print the table of a run; export, write or check it.",
    "compare": "Compare two methods or two runs with paired tests.",
    "rank-agreement": "Compare rankings of methods along an axis, such as the number of steps.",
    "claims": "Answer published claims from the records of a run: holds, fails or undecided.",
    "judge": "Let a judge model compare two sets of answers, over an OpenAI-compatible API.",
    "report": "Write a run as one HTML page: tables, plots, completions side by side.",
    "check": "Compare a run with a baseline; exit code 1 if it is worse.",
    "baseline": "Make or update the baseline for `check`.",
    "init-example": "Write a pair of small models and data to try everything with.",
    "list": "List tasks, methods, training options, models, matrices or protocols.",
    "show-method": "Show a method: what it needs, and its options.",
    "show": "Show one cell: its state, scores, settings and paths.",
    "card": "Print the model card of a student.",
    "push": "Upload a student to the hub with its model card; private by default.",
    "doctor": "Check what is installed and what is missing on this machine.",
}
# Old name -> new name. Old names still work and are not listed.
RENAMED = {"practice": "init-example"}


class LazyGroup(click.Group):
    """A group that imports a command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command. None for an unknown name."""
        name = RENAMED.get(cmd_name, cmd_name)
        return importlib.import_module(f"harness.cli.{name.replace('-', '_')}").command if name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. A mistake of the user is one line and exit code 2, an interruption exit code 130."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "harness"
            click.echo(f"error: {error.format_message()} See {command} --help.", err=True)
            ctx.exit(2)
        except OSError as error:
            if not is_disk_full(error):
                raise
            click.echo(f"error: {reason_of(error)}", err=True)
            ctx.exit(1)
        except ExecutorLost as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(1)
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted; finished work is kept, run the same command to resume", err=True)
            ctx.exit(130)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="dskd-harness", prog_name="harness")
@click.pass_context
def main(context: click.Context) -> None:
    """Distil language models over a matrix of teachers, students, methods and seeds, and compare the students by generation.

    \b
    Examples:
      harness run --matrix quick --allow-code-execution
      harness plan --matrix quick --only method=kd
      harness leaderboard runs/quick
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal in latin-1 has no dash of tables, and a model may write anything.
            stream.reconfigure(errors="replace")
    notices = _Notices()
    for logger in map(logging.getLogger, ("harness", "dskd")):
        logger.setLevel(logging.INFO)
        logger.addHandler(notices)
        context.call_on_close(partial(logger.removeHandler, notices))


class _Notices(logging.Handler):
    """Prints what is logged on standard error, each line once: a command may read a file twice."""

    def __init__(self) -> None:
        super().__init__()
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{'notice' if record.levelno < logging.WARNING else 'warning'}: {record.getMessage()}"
        if line not in self._printed:
            self._printed.add(line)
            click.echo(line, err=True)
