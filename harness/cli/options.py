"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml

import harness.engines
from dskd.errors import InputError
from harness.protocols import PROTOCOLS

F = TypeVar("F", bound=Callable[..., Any])


class RenamedOption(click.Option):
    """An option whose last name is the one that it had before: still taken, but not shown."""

    def get_help_record(self, context: click.Context) -> tuple[str, str] | None:
        names, self.opts = self.opts, self.opts[:-1]
        try:
            return super().get_help_record(context)
        finally:
            self.opts = names


def _all_of(*options: Callable[[F], F]) -> Callable[[F], F]:
    """The decorator that adds all of these options to a command, in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _known_engine(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    check_engine(value)
    return value


def _known_protocol(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if value not in PROTOCOLS:
        raise InputError(f"--protocol {value}: no such protocol; fix: one of {', '.join(PROTOCOLS)}")
    return value


def _sandbox_into_environment(_context: click.Context, _parameter: click.Parameter, value: str | bool | None) -> None:
    if value is True:
        value = "none" if os.environ.get("HARNESS_SANDBOX", "auto") == "auto" else None
    if value:
        os.environ["HARNESS_SANDBOX"] = value


# The matrix, the part of it to run, and the output directory.
matrix_options = _all_of(
    click.option(
        "--matrix",
        "matrix_name",
        required=True,
        metavar="NAME|FILE",
        help="Matrix: a shipped one by name, or a file.",
    ),
    click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="NAME=VALUE",
        help="Value of ${NAME} in the matrix file; repeatable. Default: the environment variable.",
    ),
    click.option(
        "--add-method",
        "add_methods",
        multiple=True,
        metavar="NAME",
        help="Additional method for every pair that it suits: a name or file.py:Class; repeatable (docs/own-method.md).",
    ),
    click.option(
        "--only",
        multiple=True,
        metavar="KEY=VALUE",
        help="Only cells with this teacher, student, method, seed or task; repeatable. Values of one key are alternatives.",
    ),
    click.option(
        "--limit", type=click.IntRange(min=1), metavar="N", help="Evaluate on the first N items of each task."
    ),
    click.option("--engine", metavar="NAME", help="Generation engine: auto, vllm, transformers or file.py:Class."),
    click.option(
        "--output-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Output directory. [default: runs/NAME of the matrix]",
    ),
    click.option(
        "--overwrite",
        type=click.Choice(["never", "failed", "stale", "always"]),
        default="stale",
        show_default=True,
        help="What to run again: nothing; what failed; also what has other settings now; everything. "
        "Missing and interrupted jobs run in any case.",
    ),
)


def model_option(function: F) -> F:
    """The model folder."""
    return click.option(
        "--model", required=True, type=click.Path(path_type=Path), metavar="DIR", help="An ordinary model folder."
    )(function)


dtype_option = click.option(
    "--dtype",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Dtype of the weights.",
)
batch_size_option = click.option(
    "--max-batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Maximum number of completions that are generated at once.",
)


# How a model completes prompts: protocol, length, engine, dtype, batch size and seed. Unknown names are errors.
asking_options = _all_of(
    click.option(
        "--max-new-tokens",
        type=click.IntRange(min=1),
        metavar="N",
        help="Maximum new tokens. [default: the protocol's or the task's]",
    ),
    click.option(
        "--protocol",
        default="greedy",
        show_default=True,
        metavar="NAME",
        callback=_known_protocol,
        help="Decoding protocol; `harness list protocols` has the names.",
    ),
    click.option(
        "--engine",
        default="auto",
        show_default=True,
        metavar="NAME",
        callback=_known_engine,
        help="Generation engine: auto, vllm, transformers or file.py:Class.",
    ),
    dtype_option,
    batch_size_option,
    click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Sampling seed."),
)


# Whether generated code may run, and in which sandbox. The sandbox goes into the environment, which jobs inherit.
sandbox_options = _all_of(
    click.option(
        "--allow-code-execution",
        is_flag=True,
        help="Let tasks execute model-generated code, in a sandbox.",
    ),
    click.option(
        "--sandbox",
        "sandbox_name",
        type=click.Choice(["auto", "namespaces", "bubblewrap", "docker", "podman", "none"]),
        expose_value=False,
        callback=_sandbox_into_environment,
        help="What isolates that code. auto: the first of namespaces and bubblewrap that passes its self-test; none: where "
        "neither does, limits alone, with network and files within the code's reach.",
    ),
    click.option(
        "--allow-unsandboxed",
        is_flag=True,
        hidden=True,  # what `--sandbox none` was before
        expose_value=False,
        callback=_sandbox_into_environment,
    ),
)


def variables(assignments: tuple[str, ...]) -> dict[str, str]:
    """`--set NAME=VALUE` as a dictionary.

    HARNESS_DATA also goes into the environment, where tasks look for their data in this process and in the jobs.
    """
    values = dict(split_assignment(text, "--set") for text in assignments)
    if "HARNESS_DATA" in values:
        os.environ["HARNESS_DATA"] = values["HARNESS_DATA"]
    return values


def read_settings(assignments: Sequence[str], option: str, flags: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Assignments as nested settings: `a.b=1` becomes `{"a": {"b": 1}}`. Values are YAML; `flags` are settings of other flags."""
    settings: dict[str, Any] = dict(flags or {})
    for assignment in assignments:
        key, value = split_assignment(assignment, option)
        *groups, name = key.split(".")
        place = settings
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise InputError(f"{option} {key}: {group} has a value of its own; fix: leave out one of the two")
        if name in place:
            raise InputError(f"{option} {key}: is given twice; fix: leave out one of the two")
        try:
            place[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            place[name] = value
    return settings


def split_assignment(text: str, option: str) -> tuple[str, str]:
    """Key and value of `key=value`. InputError without a key or `=`."""
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise InputError(f"{option} {text}: has no name or no value; fix: write NAME=VALUE")
    return key, value


def check_engine(name: str | None, option: str = "--engine") -> None:
    """InputError for an unknown engine. Imports no engine."""
    if name is not None:
        harness.engines.check(name, option)
