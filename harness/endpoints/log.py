"""An append-only file of replies: each is on the disk before the next step, and a torn last line is dropped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dskd.io import objects_in


class ReplyLog:
    """A file of JSON lines to which lines are only added; it may not be there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(line number, object) of every line. What a killed process has left of its last one is cut off the file.

        InputError for a damaged line that is not the last.
        """
        content = self.path.read_bytes() if self.path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with self.path.open("rb+") as file:
                file.truncate(len(whole))
        if whole.strip():
            yield from objects_in(whole.splitlines(), self.path, half_pairs=True)

    def add(self, row: Mapping[str, Any]) -> None:
        """Store a line; it is on the disk when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
