"""Options of commands that read data of the user's own: which source, and how its rows are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args

import click
from pydantic import ValidationError

from dskd.data.messages import TrainOn
from dskd.data.options import COLUMN_KEYS, DataOptions, Shape
from dskd.errors import InputError
from harness.cli.options import given, split_assignment
from harness.config.explain import dotted, explain
from harness.suggestions import did_you_mean

F = TypeVar("F", bound=Callable[..., Any])

SOURCE = "FILE|DIR|-|ORG/NAME[:SPLIT]"
_SHAPE_HELP = "Shape of the rows, where it is not detected as it should be (docs/data-sources.md)."
_COLUMN_HELP = "Templates over columns, as 'output={answer}', and names of columns, as messages=dialog; repeatable."
_TRAIN_ON_HELP = "Which of the assistant's messages are trained on. [default: all]"

_shape = click.option("--shape", type=click.Choice(get_args(Shape)), metavar="SHAPE", help=_SHAPE_HELP)
_column = click.option("--column", "columns", multiple=True, metavar="KEY=TEMPLATE", help=_COLUMN_HELP)
_train_on = click.option("--train-on", type=click.Choice(get_args(TrainOn)), help=_TRAIN_ON_HELP)


def row_options(function: F) -> F:
    """`--shape` and `--column`."""
    return _shape(_column(function))


def data_options(function: F) -> F:
    """`--shape`, `--column` and `--train-on`."""
    return row_options(_train_on(function))


def read_data_options(columns: Sequence[str] = (), **options: Any) -> DataOptions:
    """How rows are read.

    Args:
        columns: Values of `--column`.
        options: Values of other options that are named as `DataOptions` names them; None where they were not given.

    Raises:
        InputError: With the option, by a matrix's rules.
    """
    found, flags = given(**options), {name: f"--{name.replace('_', '-')}" for name in options}
    for assignment in columns:
        key, value = split_assignment(assignment, "--column")
        if key not in COLUMN_KEYS:
            known = ", ".join(COLUMN_KEYS)
            raise InputError(f"--column {key}: no such key{did_you_mean(key, COLUMN_KEYS)}; fix: one of {known}")
        if key in found:
            raise InputError(f"--column {key}: is given twice; fix: leave out one of the two")
        found[key], flags[key] = value, f"--column {key}"
    try:
        return DataOptions.model_validate(found)
    except ValidationError as error:
        raise InputError(explain(error, lambda place: flags.get(dotted(place), "--column"), DataOptions)) from None
