"""Training data as Python has it: a file, a `datasets.Dataset`, dictionaries. Preparation reads a file, so each becomes one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dskd.data.columns import apply_templates, template_columns
from dskd.errors import InputError
from dskd.training.provenance import Origin, origin_of_path

_FILE = "rows.jsonl"


def as_file(given: Any, work: Path, columns: Mapping[str, str] | None = None) -> tuple[Path, Origin]:
    """The file of a training set, and where it came from.

    Args:
        given: A file of JSON lines, a `datasets.Dataset`, or an iterable of dictionaries.
        work: Where a file is made of what is none.
        columns: What the keys of an example are made of, as in a matrix: `{"prompt": "Q: {question}", "output": "{answer}"}`.

    Raises:
        InputError: For what holds no rows.
    """
    if isinstance(given, (str, os.PathLike)):
        path = Path(given)
        if not path.is_file():
            raise InputError(f"dataset: {path}: no such file; fix: give a file of JSON lines, a Dataset or rows")
        origin = origin_of_path(path, path.name)
    else:
        path, origin = work / _FILE, _origin(given)
        _write(_rows(given), path)
    if columns is None:
        return path, origin
    made = work / "examples.jsonl"
    _write(apply_templates(path, _checked(columns)), made)
    return made, origin


def _rows(given: Any) -> Iterable[Any]:
    if isinstance(given, Mapping):
        names = ", ".join(map(str, list(given)[:5]))
        raise InputError(f"dataset: is one dictionary ({names}), not rows; fix: give one split, or a list of rows")
    if (isinstance(given, Iterable) and not hasattr(given, "to_parquet")) or hasattr(given, "column_names"):
        # Rows as Python objects, whatever format the data set gives tensors in.
        return given.with_format(None) if hasattr(given, "with_format") else given
    kind = type(given).__name__
    fix = "datasets.Dataset.from_pandas(...)" if kind == "DataFrame" else "a Dataset, a list of dictionaries or a file"
    raise InputError(f"dataset: is of type {kind}, which is no rows; fix: give {fix}")


def _write(rows: Iterable[Any], path: Path) -> None:
    """Write rows as JSON lines, one at a time, so that they need not fit into memory."""
    with path.open("w", encoding="utf-8") as lines:
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise InputError(
                    f"dataset: row {number} is {type(row).__name__}, no dictionary; fix: give dictionaries"
                )
            try:
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            except UnicodeEncodeError:
                raise InputError(
                    f"dataset: row {number}: half of a surrogate pair is no text; fix: write the whole character"
                ) from None
            except TypeError as error:
                raise InputError(f"dataset: row {number}: {error}; fix: give texts, numbers and lists") from None


def _checked(columns: Mapping[str, str]) -> Mapping[str, str]:
    for key, template in columns.items():
        try:
            template_columns(template)
        except ValueError as error:
            raise InputError(f"columns.{key}: {error}; fix: correct it") from None
    return columns


def _origin(given: Any) -> Origin:
    info = getattr(given, "info", None)
    name = getattr(info, "dataset_name", None) or getattr(info, "builder_name", None)
    fingerprint = getattr(given, "_fingerprint", None)
    made = f"a Dataset given from Python, fingerprint {fingerprint}" if fingerprint else "rows given from Python"
    return Origin(name=str(name or "rows"), made=made)
