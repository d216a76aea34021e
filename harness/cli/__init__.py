"""The command line: one module a command, loaded when it is called."""

from __future__ import annotations

import importlib
import logging
from typing import Any

import click

from dskd.errors import InputError

# Name -> its line in `harness --help`, so that help needs no command's imports. The module has the same name, with _ for -.
COMMANDS = {
    "plan": "Show what a run would do, what is done, and what is stale and why.",
    "run": "Train and evaluate everything a matrix asks for, and print the table.",
    "train": "Train one student on models and data of your own.",
    "evaluate": "Answer and score tasks with a model folder.",
    "generate": "Write a model's answers to a task, or to prompts of your own, into a file.",
    "score": "Score a file of answers to a task.",
    "data": "Check and fetch the data files of tasks; compare them with training data.",
    "parity": "Compare two engines, answer by answer.",
    "align": "Show how well two tokenizers align, before any training.",
    "leaderboard": "Print the table of the records in a folder; export, write or check it.",
    "compare": "Compare two methods, or two runs, on the items of both.",
    "report": "Write a run as one HTML page: tables, plots, answers side by side.",
    "check": "Compare a run with a baseline; exit code 1 where it got worse.",
    "baseline": "Make or update the baseline that runs are checked against.",
    "practice": "Write a pair of small models and data to try everything with.",
    "list": "List tasks, methods, training options, models, matrices or protocols.",
    "show-method": "Show a method: what it needs, and its options.",
    "show": "Show one cell: what it is, how it stands, its scores and paths.",
    "doctor": "Check what this machine has and lacks.",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command; None for an unknown name, and click says so."""
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"harness.cli.{cmd_name.replace('-', '_')}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands with their lines, none of them imported."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command: a user's mistake is one line and exit code 2, an interruption 130."""
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
            from harness.runs.failures import is_disk_full, reason_of

            if not is_disk_full(error):
                raise
            click.echo(f"error: {reason_of(error)}", err=True)
            ctx.exit(1)
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted; everything that was done is kept, run the same command to go on", err=True)
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
      harness leaderboard --results runs/quick
    """
    logger, notices = logging.getLogger("harness"), _Notices()
    logger.setLevel(logging.INFO)
    logger.addHandler(notices)
    context.call_on_close(lambda: logger.removeHandler(notices))


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
