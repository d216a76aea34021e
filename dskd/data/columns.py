"""Keys made of the columns of a row, as in `prompt: "Question: {question}\\nAnswer:"`."""

from __future__ import annotations

import string
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from dskd.data.messages import Lacking
from dskd.errors import InputError


def template_columns(template: str) -> list[str]:
    """The column names in a template such as `Question: {question}`; ValueError where its fields are not plain `{column}`."""
    columns = []
    try:
        for _, column, format_spec, conversion in string.Formatter().parse(template):
            if column is None:
                continue
            if not column.isidentifier() or format_spec or conversion:
                raise ValueError(f"'{{{column}}}' is not a plain column name; write {{column}}, and {{{{ for a brace")
            columns.append(column)
    except ValueError as error:
        raise ValueError(f"is not a template of {{column}} fields ({error})") from error
    if not columns:
        raise ValueError("names no column; write at least one {column}")
    return columns


# What an example may lack: a null there is nothing, and elsewhere a mistake.
OPTIONAL = frozenset(("input", "system", "reasoning"))

_columns = cache(template_columns)  # the same few for every row


def fill_templates(
    row: Mapping[str, Any], where: str, templates: Mapping[str, str], optional: Collection[str] = ()
) -> dict[str, str]:
    """Each key made from the columns of a row by its template; an empty text for a key of `optional` with a null in a column.

    Raises:
        InputError: For a column that the row has not.
        Lacking: For one that holds neither text nor a number.
    """
    return {key: _filled(row, where, template, key in optional) for key, template in templates.items()}


def _filled(row: Mapping[str, Any], where: str, template: str, optional: bool) -> str:
    for column in _columns(template):
        if column not in row:
            raise InputError(f"{where}: has no column '{column}', which the template names; columns: {', '.join(row)}")
        if optional and row[column] is None:
            return ""
        if isinstance(row[column], bool) or not isinstance(row[column], (str, int, float)):
            reason = f"column '{column}', which the template names, is neither text nor a number"
            raise Lacking(where, reason, "give it one, or leave the line out")
    return template.format_map(row)
