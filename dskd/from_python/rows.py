"""Training data as Python has it: a file, a name on the hub, a `datasets.Dataset`, dictionaries. Preparation reads a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dskd import hub
from dskd.data.hub_rows import parse_hub_data, rows_of_hub
from dskd.data.options import DataOptions
from dskd.data.reading import as_json, spooled
from dskd.errors import InputError
from dskd.io import write_lines_atomic
from dskd.training.provenance import Origin, origin_of_path

FILE = "rows.jsonl"  # in the work folder: rows that were no file


def as_source(given: Any, work: Path) -> tuple[Path, Origin]:
    """The file or folder of a training set, and where it came from.

    Args:
        given: A file or a folder in any form of docs/data-sources.md, `org/name[@revision][:[configuration:]split]` on the hub, a
            `datasets.Dataset`, or an iterable of dictionaries.
        work: Where a file is made of what is none.

    Raises:
        InputError: For what holds no rows.
    """
    if not isinstance(given, (str, os.PathLike)):
        _write(_rows(given), work / FILE)
        return work / FILE, _origin(given)
    try:
        data = parse_hub_data(str(given))
        if data is None:
            path = spooled(Path(given), work)
            return path, origin_of_path(Path(given), Path(given).name)
        commit = hub.resolve(data.name.repo, data.name.revision, "dataset")
        _write((row for _, row in rows_of_hub(data, commit)), work / FILE)
    except InputError as error:
        raise type(error)(f"dataset: {error}") from None
    card = hub.snapshot(data.name.repo, commit, kind="dataset", files=("README.md",))
    return work / FILE, origin_of_path(card, str(data))


def data_options(given: Mapping[str, Any] | DataOptions | None) -> DataOptions:
    """How the rows are read. InputError for what says it wrong."""
    if given is None or isinstance(given, DataOptions):
        return given or DataOptions()
    try:
        return DataOptions.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(("data_options", *map(str, first["loc"])))
        raise InputError(f"{place}: {first['msg'].removeprefix('Value error, ')}; fix: correct it") from None


def _rows(given: Any) -> Iterable[Any]:
    if isinstance(given, Mapping):
        names = ", ".join(map(str, list(given)[:5]))
        raise InputError(f"dataset: is one dictionary ({names}), not rows; fix: give one split, or a list of rows")
    if hasattr(given, "with_format"):  # of `datasets`; rows as Python objects, whatever format it gives tensors in
        return given.with_format(None)
    kind = type(given).__name__
    if isinstance(given, Iterable) and kind != "DataFrame":
        return given
    fix = "datasets.Dataset.from_pandas(…)" if kind == "DataFrame" else "a Dataset, a list of dictionaries or a file"
    raise InputError(f"dataset: is of type {kind}, which is no rows; fix: give {fix}")


def _write(rows: Iterable[Any], path: Path) -> None:
    """Write rows as JSON lines, one at a time, so that they need not fit into memory."""
    write_lines_atomic(path, _checked(rows), default=as_json)


def _checked(rows: Iterable[Any]) -> Iterator[Any]:
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(f"dataset: row {number} is {type(row).__name__}, no dictionary; fix: give dictionaries")
        try:
            json.dumps(row, ensure_ascii=False, default=as_json).encode()
        except UnicodeEncodeError:
            raise InputError(
                f"dataset: row {number}: half of a surrogate pair is no text; fix: write the whole character"
            ) from None
        except TypeError as error:
            raise InputError(f"dataset: row {number}: {error}; fix: give texts, numbers and lists") from None
        yield row


def _origin(given: Any) -> Origin:
    info = getattr(given, "info", None)
    name = getattr(info, "dataset_name", None) or getattr(info, "builder_name", None)
    fingerprint = getattr(given, "_fingerprint", None)
    made = f"a Dataset given from Python, fingerprint {fingerprint}" if fingerprint else "rows given from Python"
    return Origin(name=str(name or "rows"), made=made)
