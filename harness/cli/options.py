"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from dskd.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])


def matrix_options(function: F) -> F:
    """Which matrix, which part of it, and where its results lie."""
    for option in reversed(
        [
            click.option(
                "--matrix", "matrix_name", required=True, metavar="NAME|FILE", help="A matrix that ships, or a file."
            ),
            click.option(
                "--set",
                "assignments",
                multiple=True,
                metavar="NAME=VALUE",
                help="A variable of the matrix, ${NAME} in its file; repeatable. Else it comes from the environment.",
            ),
            click.option(
                "--add-method",
                "add_methods",
                multiple=True,
                metavar="NAME",
                help="A method besides the matrix's, for every pair that it suits; repeatable (docs/own-method.md).",
            ),
            click.option(
                "--only",
                multiple=True,
                metavar="KEY=VALUE",
                help="Only cells with this teacher, student, method, seed or task; repeatable, values of one key are alternatives.",
            ),
            click.option(
                "--limit", type=click.IntRange(min=1), metavar="N", help="Evaluate on the first N items of each task."
            ),
            click.option("--engine", metavar="NAME", help="Generate with this engine: auto, vllm or transformers."),
            click.option(
                "--output-dir",
                type=click.Path(path_type=Path),
                metavar="DIR",
                help="Where everything goes; runs/<name of the matrix> unless given.",
            ),
            click.option(
                "--overwrite",
                type=click.Choice(["never", "failed", "stale", "always"]),
                default="stale",
                show_default=True,
                help="What is made again: nothing that exists; what failed; also what was made with other settings; everything. "
                "What is missing or was interrupted is made in any case.",
            ),
        ]
    ):
        function = option(function)
    return function


def model_option(function: F) -> F:
    """The model that is asked."""
    return click.option(
        "--model", required=True, type=click.Path(path_type=Path), metavar="DIR", help="An ordinary model folder."
    )(function)


dtype_option = click.option(
    "--dtype",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Of the model.",
)
batch_size_option = click.option(
    "--max-batch-size", type=click.IntRange(min=1), metavar="N", help="Answers that are generated at once."
)


def asking_options(function: F) -> F:
    """How a model is asked: the length and the drawing of its answers, and what writes them. Wrong names are errors here."""
    for option in reversed(
        [
            click.option(
                "--max-new-tokens",
                type=click.IntRange(min=1),
                metavar="N",
                help="Of an answer; what the protocol or the task says unless given.",
            ),
            click.option(
                "--protocol",
                default="greedy",
                show_default=True,
                metavar="NAME",
                callback=_known_protocol,
                help="How answers are drawn; `harness list protocols` has them.",
            ),
            click.option(
                "--engine",
                default="auto",
                show_default=True,
                metavar="NAME",
                callback=_known_engine,
                help="auto, vllm or transformers.",
            ),
            dtype_option,
            batch_size_option,
            click.option(
                "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of what is drawn at random."
            ),
        ]
    ):
        function = option(function)
    return function


def _known_engine(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    check_engine(value)
    return value


def _known_protocol(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    from harness.protocols import PROTOCOLS

    if value not in PROTOCOLS:
        raise InputError(f"--protocol {value}: no such protocol; fix: one of {', '.join(PROTOCOLS)}")
    return value


def sandbox_options(function: F) -> F:
    """Whether generated code may run, and in what. The latter two go into the environment, where the jobs of a run find them."""
    for option in reversed(
        [
            click.option(
                "--allow-code-execution",
                is_flag=True,
                help="Accept that tasks run the code that a model wrote, in a sandbox.",
            ),
            click.option(
                "--sandbox",
                "sandbox_name",
                type=click.Choice(["auto", "namespaces", "bubblewrap", "docker", "podman"]),
                expose_value=False,
                callback=_into_environment("HARNESS_SANDBOX"),
                help="What isolates that code; auto: the first of namespaces and bubblewrap that passes its self-test.",
            ),
            click.option(
                "--allow-unsandboxed",
                is_flag=True,
                expose_value=False,
                callback=_into_environment("HARNESS_ALLOW_UNSANDBOXED"),
                help="Where nothing isolates that code, run it with limits alone: network and files are within its reach.",
            ),
        ]
    ):
        function = option(function)
    return function


def _into_environment(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(_context: click.Context, _parameter: click.Parameter, value: str | bool | None) -> None:
        if value:
            os.environ[name] = "1" if value is True else str(value)

    return callback


def variables(assignments: tuple[str, ...]) -> dict[str, str]:
    """`--set NAME=VALUE` as a dictionary.

    HARNESS_DATA also goes into the environment: tasks look for their data there, in this process and in those of the jobs.
    """
    values = dict(split_assignment(text, "--set") for text in assignments)
    if "HARNESS_DATA" in values:
        os.environ["HARNESS_DATA"] = values["HARNESS_DATA"]
    return values


def split_assignment(text: str, option: str) -> tuple[str, str]:
    """`key=value` in two; InputError where there is no key or no `=`."""
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise InputError(f"{option} {text}: write NAME=VALUE")
    return key, value


def check_engine(name: str | None, option: str = "--engine") -> None:
    """InputError for an engine that does not exist; cheap, so it comes before any work."""
    import harness.engines

    if name is not None:
        harness.engines.check(name, option)
