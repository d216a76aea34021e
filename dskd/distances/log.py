"""The finished batches of a measurement on the disk, from which one that was killed goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dskd.distances.sums import Numbers
from dskd.io import write_atomic


class Log:
    """A file of JSON lines; a line that was cut off by a kill is written again.

    Args:
        path: The file; None for one that is not kept.
        digest: Of the texts and of all else that the numbers depend on: those of another measurement are dropped.

    Attributes:
        items: The numbers of each text that is done.
        about: What the two models have in common.
    """

    def __init__(self, path: Path | None, digest: str) -> None:
        self._path = path
        self.items: dict[int, Numbers] = {}
        self.about: dict[str, Any] = {}
        lines = [] if path is None or not path.is_file() else _whole_lines(path)
        if not lines or lines[0] != {"texts": digest}:
            lines = [{"texts": digest}]
        for line in lines[1:]:
            if "about" in line:
                self.about = line["about"]
            else:
                self.items |= {int(number): _pairs(values) for number, values in line["items"].items()}
        if path is not None:
            write_atomic(path, "".join(json.dumps(line) + "\n" for line in lines))

    def say(self, about: dict[str, Any]) -> None:
        """Keep what the models have in common."""
        if about != self.about:
            self.about = about
            self._append({"about": about})

    def add(self, items: dict[int, Numbers]) -> None:
        """Keep a batch."""
        self.items |= items
        self._append({"items": items})

    def _append(self, line: dict[str, Any]) -> None:
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def _pairs(values: dict[str, list[float]]) -> Numbers:
    return {name: (total, count) for name, (total, count) in values.items()}


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        found.append(json.loads(line))
    return found
