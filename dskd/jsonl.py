"""Reading files of one JSON object a line, with errors that name the line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dskd.errors import InputError


def _has_half_a_pair(row: Any) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def read_objects(path: Path, *, half_pairs: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) for every line that is not blank.

    Raises InputError for a missing file, a file without objects, text that is not UTF-8, and a line that is not a JSON object; also
    for half of a surrogate pair in a string, which no encoding can write, unless `half_pairs` lets it through.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; fix: give the path of a JSONL file")
    empty = True
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(
                    f"{path}:{number}: not JSON ({error.msg} at column {error.colno}); fix: one JSON object on each line"
                ) from None
            except UnicodeDecodeError:
                raise InputError(f"{path}:{number}: not UTF-8 text; fix: save the file as UTF-8") from None
            if not half_pairs and rb"\ud" in line.lower() and _has_half_a_pair(row):
                raise InputError(
                    f"{path}:{number}: half of a surrogate pair (\\ud800 to \\udfff) is no text; fix: write the whole character"
                )
            if not isinstance(row, dict):
                raise InputError(f"{path}:{number}: not a JSON object; fix: one JSON object on each line")
            empty = False
            yield number, row
    if empty:
        raise InputError(f"{path}: the file is empty; fix: one JSON object on each line")
