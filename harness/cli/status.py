"""`harness status`: where a run is, from its folder."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live

from dskd.errors import InputError
from harness.cli.live_view import STYLES, LiveView, summary
from harness.cli.options import PATH, json_option
from harness.cli.output import print_json
from harness.cli.show import only_run
from harness.watching.page import write_page
from harness.watching.snapshot import cell_of
from harness.watching.status import Status, read_status

EPILOG = """\b
Examples:
  harness status runs/quick
  harness status runs/quick --watch
  harness status runs/quick --json
  harness status runs/quick --html status.html

\b
It reads the folder and nothing else: from any terminal, and from any machine that sees the disk.
Exit codes: 0 nothing has failed, 1 something has, 2 the folder holds no run."""

_MOST_LINES = 30
_EVERY = 2.0  # seconds between two looks
_MINUTE = 60.0  # seconds between two lines without a terminal


@click.command("status", epilog=EPILOG)
@click.argument("run", type=PATH, required=False, metavar="[DIR]")
@json_option
@click.option("--watch", is_flag=True, help="Show it again and again until no harness runs it.")
@click.option("--html", type=PATH, metavar="FILE", help="Also write it as an HTML page.")
@click.pass_context
def command(context: click.Context, run: Path | None, as_json: bool, watch: bool, html: Path | None) -> None:
    """Show where a run is: cells, running jobs, failures, the time left, and whether a harness runs it."""
    if watch and as_json:
        raise InputError("--watch and --json: do not go together; fix: follow DIR/.harness/events.jsonl instead")
    root = run or only_run()
    status = _watched(root) if watch else read_status(root)
    if html is not None:
        try:
            write_page(html, status.snapshot)
        except OSError as error:
            raise InputError(f"--html {html}: cannot be written ({error.strerror}); fix: name another file") from None
    if as_json:
        print_json(status.as_json())
    else:
        print_status(status, Console(width=None if sys.stdout.isatty() else 160))
    if status.failed:
        context.exit(1)


def print_status(status: Status, console: Console) -> None:
    """Print all of it but the cells that are done."""
    told = status.snapshot
    console.print(LiveView(told, failures=0))
    for failure in told.failures[:_MOST_LINES]:
        _print(console, f"FAIL {failure.title}: {failure.reason}", "bold red")
        _print(console, f"     log: {failure.log}")
    if len(told.failures) > _MOST_LINES:
        _print(console, f"… and {len(told.failures) - _MOST_LINES} more failures; --json lists all")
    interrupted = {output.folder for output in status.outputs if output.reason == "interrupted"}
    rest = [(cell, state) for cell, state in status.cells.states.items() if state in {"waiting", "running", "skipped"}]
    for cell, state in rest[:_MOST_LINES]:
        is_interrupted = state == "waiting" and any(cell_of(folder) == cell for folder in interrupted)
        word = "interrupted" if is_interrupted else state
        _print(console, f"{word:<12}{cell}", STYLES[state])
    if len(rest) > _MOST_LINES:
        _print(console, f"… and {len(rest) - _MOST_LINES} more cells; --json lists all")
    for process in status.processes:
        _print(console, f"Harness: process {process.pid} on {process.host} since {process.started}")
    if not status.processes and rest:
        _print(console, "No harness runs it; fix: the same `harness run` command goes on with it")


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True, style=style)


def _watched(root: Path) -> Status:
    """Show a run until nobody runs it; its last state."""
    console = Console()
    status = read_status(root)
    if not console.is_terminal:
        while status.processes:
            click.echo(summary(status.snapshot))
            time.sleep(_MINUTE)
            status = read_status(root)
        return status
    with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
        while status.processes:
            began = time.process_time()
            live.update(LiveView(status.snapshot, console.size.height - 1), refresh=True)
            status = read_status(root)
            # A large run is looked at less often: looking takes at most a fifth of a core.
            time.sleep(max(_EVERY, 4 * (time.process_time() - began)))
    return status
