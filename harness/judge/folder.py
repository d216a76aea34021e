"""The folder of a comparison.

    DIR/judge.json          what is compared, by which judge, with which prompt and parameters
    DIR/judgements.jsonl    a line per request, with what was asked and the whole reply; lines are only added
    DIR/summary.json        what all of them come to

It is none of the run folders: no `result.json`, so no leaderboard reads it. Whatever is killed at any time resumes: a torn last line is
dropped, and only what is missing is asked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dskd.errors import InputError
from dskd.io import objects_in, read_object
from harness.runs.store import require_writable, write_json_atomic

SETTINGS = "judge.json"
JUDGEMENTS = "judgements.jsonl"
SUMMARY = "summary.json"
_LOCK = ".lock"

Key = tuple[str, int, str, int]


class JudgeFolder:
    """A comparison's folder, opened by `open_folder`. `judgements` are by `Question.key`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.judgements: dict[Key, dict[str, Any]] = {}

    def read(self) -> None:
        """Read the judgements. InputError for a damaged line that is not the last."""
        path = self.path / JUDGEMENTS
        content = path.read_bytes() if path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with path.open("rb+") as file:
                file.truncate(len(whole))
        if not whole.strip():
            return
        for number, row in objects_in(whole.splitlines(), path, half_pairs=True):
            try:
                key = (row["id"], row["index"], row["order"], row["repeat"])
                _ = row["request"], row["winner"], row["verdict"], row["began"], row["seconds"]
            except KeyError as error:
                raise InputError(f"{path}:{number}: has no {error}; fix: remove the line") from None
            self.judgements[key] = row

    def add(self, judgement: Mapping[str, Any]) -> None:
        """Store a judgement; it is on the disk when this returns."""
        with (self.path / JUDGEMENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(judgement, ensure_ascii=True, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
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
    require_writable(path, where)
    stored = path / SETTINGS
    if path.is_dir() and not stored.is_file() and any(entry.name != _LOCK for entry in path.iterdir()):
        raise InputError(f"{where}: holds other files and no {SETTINGS}; fix: name a new folder")
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"{where}: another process is asking its judge; fix: wait, or name another folder") from None
    try:
        folder = JudgeFolder(path)
        folder.read()
        if folder.judgements:
            _same(read_object(stored).get("settings"), settings, where)
        else:  # also where a first try got no reply, of a model or a parameter that the server does not know
            write_json_atomic(stored, {"schema_version": 1, "settings": settings, **notes})
        yield folder
    finally:
        lock.release()


def _same(before: Any, now: Mapping[str, Any], where: str) -> None:
    old, new = _flat(before if isinstance(before, dict) else {}), _flat(now)
    for name in [*new, *old]:
        if old.get(name) != new.get(name):
            raise InputError(
                f"{where}: holds verdicts with {name} {_short(old.get(name))}, not {_short(new.get(name))}, and both are not counted "
                "together; fix: name another folder, or use the settings that it was begun with"
            )


def _flat(value: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, each in value.items():
        flat |= _flat(each, f"{before}{name}.") if isinstance(each, dict) and each else {f"{before}{name}": each}
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
