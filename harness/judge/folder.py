"""The folder of a comparison.

    DIR/judge.json          what is compared, by which judge, with which prompt and parameters
    DIR/judgements.jsonl    a line per request, with what was asked and the whole reply; lines are only added
    DIR/summary.json        what all of them come to

It is none of the run folders: no `result.json`, so no leaderboard reads it. Whatever is killed at any time resumes: a torn last line is
dropped, and only what is missing is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.io import read_object
from harness.endpoints.folder import locked_folder, require_same
from harness.endpoints.log import ReplyLog
from harness.runs.store import write_json_atomic

SETTINGS = "judge.json"
JUDGEMENTS = "judgements.jsonl"
SUMMARY = "summary.json"

Key = tuple[str, int, str, int]


class JudgeFolder:
    """A comparison's folder, opened by `open_folder`. `judgements` are by `Question.key`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log = ReplyLog(path / JUDGEMENTS)
        self.judgements: dict[Key, dict[str, Any]] = {}

    def read(self) -> None:
        """Read the judgements. InputError for a damaged line that is not the last."""
        for number, row in self._log.rows():
            try:
                key = (row["id"], row["index"], row["order"], row["repeat"])
                _ = row["request"], row["winner"], row["verdict"], row["began"], row["seconds"]
            except KeyError as error:
                raise InputError(f"{self._log.path}:{number}: has no {error}; fix: remove the line") from None
            self.judgements[key] = row

    def add(self, judgement: Mapping[str, Any]) -> None:
        """Store a judgement; it is on the disk when this returns."""
        self._log.add(judgement)
        self.judgements[judgement["id"], judgement["index"], judgement["order"], judgement["repeat"]] = dict(judgement)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write what the judgements come to."""
        write_json_atomic(self.path / SUMMARY, summary)


@contextmanager
def open_folder(path: Path, settings: Mapping[str, Any], notes: Mapping[str, Any]) -> Iterator[JudgeFolder]:
    """Open a folder for one process, new or with judgements of the same settings.

    Args:
        settings: What must be the same for verdicts to be counted together.
        notes: What is written down beside them, of the first command.

    InputError where the folder holds verdicts of other settings or anything else, cannot be written, or is being written by another
    process.
    """
    where = f"--output-dir {path}"
    with locked_folder(path, SETTINGS, where, "asking its judge"):
        folder = JudgeFolder(path)
        folder.read()
        if folder.judgements:
            before = read_object(path / SETTINGS).get("settings")
            require_same(before, settings, where, "verdicts", "both are not counted together")
        else:  # also where a first try got no reply, of a model or a parameter that the server does not know
            write_json_atomic(path / SETTINGS, {"schema_version": 1, "settings": settings, **notes})
        yield folder
