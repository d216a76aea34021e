"""How a run is carried out: the options that say where its jobs run and how often they are tried, and the executor that follows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import ValidationError

from dskd.errors import InputError
from harness.cli.options import COUNT, read_settings
from harness.executors import EXECUTORS
from harness.scheduling.executor import TRIES, BaseExecutor, ExecutorOptions, Settings
from harness.suggestions import did_you_mean

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Execution:
    """How jobs are run.

    Attributes:
        executor: The name of the executor.
        options: Its own options, as `KEY=VALUE`.
        jobs: The most jobs at once; None for as many as there is room for.
        gpus: The number of GPUs to count with; None for those that are found.
        tries: How often a job is tried whose failure may pass.
        fail_fast: Start no more jobs after the first failure.
        cpus: Threads of a job that does not say; None for the executor's usual number.
    """

    executor: str = "local"
    options: Sequence[str] = ()
    jobs: int | None = None
    gpus: int | None = None
    tries: int = TRIES
    fail_fast: bool = False
    cpus: int | None = None

    def make(self, root: Path) -> BaseExecutor:
        """The executor, for a run in this folder. InputError for options that it does not have."""
        kind: type[BaseExecutor] = EXECUTORS.load(self.executor)
        uses_hub = os.environ.get("HARNESS_HUB") == "1"
        options = _options(kind.Options, self.options)
        settings = Settings(root, self.jobs, offline=not uses_hub, gpus=self.gpus, tries=self.tries, options=options)
        made = kind(settings)
        if self.cpus is not None:
            made.usual_cpus = self.cpus
        return made


def _options(known: type[ExecutorOptions], assignments: Sequence[str]) -> ExecutorOptions:
    given = read_settings(assignments, "--executor-option")
    for key in given:
        if key not in known.model_fields:
            raise InputError(
                f"--executor-option {key}: this executor has no such option{did_you_mean(key, known.model_fields)}"
            )
    try:
        return known.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"--executor-option {place}: {first['msg']}; fix: give another value") from None


def _known_executor(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    EXECUTORS.check(value, "--executor")
    return value


def execution_options(function: F) -> F:
    """The options of a command whose jobs may run anywhere."""
    options = (
        click.option(
            "--executor",
            default="local",
            show_default=True,
            metavar="NAME",
            callback=_known_executor,
            help="Where jobs run: local, ray, slurm, or file.py:Class.",
        ),
        click.option(
            "--executor-option",
            "executor_options",
            multiple=True,
            metavar="KEY=VALUE",
            help="Option of the executor, as partition=gpu; repeatable. `harness list executors` has them.",
        ),
        click.option(
            "--jobs", type=COUNT, metavar="J", help="Most jobs at once. [default: as many as there is room for]"
        ),
        click.option(
            "--gpus",
            type=click.IntRange(min=0),
            metavar="N",
            help="Number of GPUs to use on this machine. [default: those that are visible]",
        ),
        click.option(
            "--tries", type=COUNT, default=TRIES, show_default=True, help="Tries of a job whose failure may pass."
        ),
        click.option("--fail-fast", is_flag=True, help="Start no more jobs after the first failure."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def execution_of(options: dict[str, Any]) -> Execution:
    """Take the options of `execution_options` out of `options`."""
    names = ("executor", "jobs", "gpus", "tries", "fail_fast")
    return Execution(options=options.pop("executor_options"), **{name: options.pop(name) for name in names})
