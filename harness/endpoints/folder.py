"""A folder of replies of one command: one process at a time, and never replies of two settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dskd.errors import InputError
from harness.runs.store import require_writable

_LOCK = ".lock"


@contextmanager
def locked_folder(path: Path, settings: str, where: str, busy: str) -> Iterator[None]:
    """Hold a folder, made where it is not there, for this process.

    Args:
        settings: The file that shows that the folder is one of these.
        where: The option that names it, for errors.
        busy: What another process would be doing.

    Raises:
        InputError: Where it holds anything else, cannot be written, or is held by another process.
    """
    require_writable(path, where)
    if path.is_dir() and not (path / settings).is_file() and any(entry.name[0] != "." for entry in path.iterdir()):
        raise InputError(f"{where}: holds other files and no {settings}; fix: name a new folder")
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"{where}: another process is {busy}; fix: wait, or name another folder") from None
    try:
        yield
    finally:
        lock.release()


def require_same(before: Any, now: Mapping[str, Any], where: str, what: str, reason: str) -> None:
    """InputError where settings differ from those that a folder was begun with.

    Args:
        what: What the folder holds, in the plural.
        reason: Why the two do not go together.
    """
    old, new = _flat(before if isinstance(before, dict) else {}), _flat(now)
    for name in [*new, *old]:
        if old.get(name) != new.get(name):
            raise InputError(
                f"{where}: holds {what} with {name} {_short(old.get(name))}, not {_short(new.get(name))}, and {reason}; "
                "fix: name another folder, or use the settings that it was begun with"
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
