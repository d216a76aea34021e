"""Training examples made of the columns of a file with other names, as in `prompt: "Question: {question}\\nAnswer:"`."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path

from dskd.errors import InputError
from dskd.io import read_objects


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


def apply_templates(path: Path, templates: Mapping[str, str]) -> list[dict[str, str]]:
    """The lines of a JSON-lines file as examples, each key made from columns by its template.

    Raises InputError with file and line, for a line that is no object or lacks a column of the templates, or text or a number in it.
    """
    columns = dict.fromkeys(column for text in templates.values() for column in template_columns(text))
    examples = []
    for number, row in read_objects(path):
        for column in columns:
            if column not in row:
                raise InputError(
                    f"{path}:{number}: has no column '{column}', which the template names; columns: {', '.join(row)}"
                )
            if isinstance(row[column], bool) or not isinstance(row[column], (str, int, float)):
                raise InputError(
                    f"{path}:{number}: column '{column}', which the template names, is neither text nor a number; "
                    "give it one, or leave the line out"
                )
        examples.append({key: text.format_map(row) for key, text in templates.items()})
    return examples
