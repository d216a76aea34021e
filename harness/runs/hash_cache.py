"""Remembered hashes of large files: a folder with one small file an entry, shared by all processes and runs of a user.

    $HARNESS_CACHE, else $XDG_CACHE_HOME/dskd-harness, else ~/.cache/dskd-harness
        hashes/<sha256 of path and device>.json     {"path", "device", "size", "mtime_ns", "inode", "sha256", "check"}

An entry holds for a file whose resolved path, device, size, time of change (in ns) and inode are still those of the entry. What it
cannot see is a byte that changes while all of these stay: damage on the disk, or a program that puts the time back. `verify` finds
that. The time of the inode's change (ctime) is no part of it: a hard link to the file, as copies of models make, moves it.

One file an entry, written under another name and renamed, needs no lock, which shared home folders often do not keep: a reader
sees the old entry or the new one. SQLite (and so diskcache) needs locks that work, and its write-ahead log the memory of one machine.
Every entry carries a check of itself, so a damaged one is no entry. Nothing here fails a run: where the folder cannot be used, files
are hashed, and a warning says so once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dskd.errors import InputError, is_disk_full
from dskd.io import write_atomic

log = logging.getLogger(__name__)

VARIABLE = "HARNESS_CACHE"
MIN_BYTES = 1 << 20  # a smaller file is hashed faster than its entry is found and written
MAX_ENTRIES = 4096
UNUSED_DAYS = 180
# Two changes within the resolution of a file system's clock look like one; the coarsest in use (FAT) counts 2 s.
SETTLED_SECONDS = 2.0
_DAY, _HOUR = 86400.0, 3600.0
_SUFFIX = ".json"


@dataclass(frozen=True)
class FileKey:
    """What a file is recognised by.

    Attributes:
        path: resolved, absolute.
        device, inode: of the file system.
        size: in bytes.
        mtime_ns: when its content changed, in nanoseconds.
    """

    path: str
    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path, status: os.stat_result) -> FileKey:
        """The key of a file at a resolved path with this status."""
        return cls(str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def is_settled(self, moment: float) -> bool:
        """Whether a later change would have another time: `moment` (of the clock, in seconds) is when reading began."""
        return self.mtime_ns / 1e9 <= moment - SETTLED_SECONDS


@dataclass(frozen=True)
class _Entry:
    """A file and its hash; `disputed` is another hash that the same file was found to have."""

    key: FileKey
    sha256: str
    disputed: str | None = None

    def text(self) -> str:
        return json.dumps({**self._content(), "check": self._check()}) + "\n"

    def _content(self) -> dict[str, object]:
        more = {} if self.disputed is None else {"disputed": self.disputed}
        return {**asdict(self.key), "sha256": self.sha256, **more}

    def _check(self) -> str:
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def read(cls, path: Path) -> _Entry | None:
        """The entry in a file; None for none, and for a damaged one. OSError where it cannot be read."""
        try:
            content = json.loads(path.read_bytes())
            check, disputed = content.pop("check"), content.pop("disputed", None)
            entry = cls(sha256=content.pop("sha256"), key=FileKey(**content), disputed=disputed)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return entry if entry._check() == check else None


def cache_folder() -> Path | None:
    """The folder of what this program remembers between runs; None where the user has no home."""
    if own := os.environ.get(VARIABLE):
        return Path(own).expanduser()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (base if base.is_absolute() else Path.home() / ".cache") / "dskd-harness"
    except RuntimeError:
        return None


class HashCache:
    """The remembered hashes of a user."""

    def __init__(self, folder: Path | None = None) -> None:
        """folder: where they are; that of `cache_folder` unless given."""
        place = folder or cache_folder()
        self._folder = None if place is None else place / "hashes"
        self._told = False

    def get(self, key: FileKey) -> str | None:
        """The sha256 of a file in hexadecimal, or None.

        Raises:
            InputError: for a file whose bytes `verify` has found changed.
        """
        entry = self._entry(key)
        if entry is None:
            return None
        if entry.disputed is not None:
            raise _changed(entry)
        self._mark_used(key)
        return entry.sha256

    def put(self, key: FileKey, sha256: str, moment: float) -> None:
        """Remember the hash of a file that was read from `moment` (of the clock, in seconds) on, unless it may change unseen."""
        if self._folder is None or key.size < MIN_BYTES or not key.is_settled(moment):
            return
        if self._write(_Entry(key, sha256)):
            self._drop_old()

    def verify(self, key: FileKey, sha256: str) -> None:
        """Compare a hash that was just made with the remembered one. A difference is remembered, and an agreement ends it.

        Raises:
            InputError: where they differ.
        """
        entry = self._entry(key)
        if entry is None:
            return
        found = replace(entry, disputed=sha256 if sha256 != entry.sha256 else None)
        if found != entry:
            self._write(found)
        if found.disputed is not None:
            raise _changed(found)

    def _place(self, key: FileKey) -> Path:
        assert self._folder is not None
        name = hashlib.sha256(f"{key.device}\0{key.path}".encode(errors="surrogateescape")).hexdigest()[:32]
        return self._folder / f"{name}{_SUFFIX}"

    def _entry(self, key: FileKey) -> _Entry | None:
        if self._folder is None or key.size < MIN_BYTES:
            return None
        try:
            entry = _Entry.read(self._place(key))
        except OSError as error:
            self._tell(error)
            return None
        return entry if entry is not None and entry.key == key else None

    def _write(self, entry: _Entry) -> bool:
        try:
            write_atomic(self._place(entry.key), entry.text())
        except OSError as error:
            self._tell(error)
            return False
        return True

    def _mark_used(self, key: FileKey) -> None:
        """Keep an entry from being dropped; at most once a day, as it is a write."""
        place = self._place(key)
        with suppress(OSError):
            if time.time() - place.stat().st_mtime > _DAY:
                os.utime(place)

    def _drop_old(self) -> None:
        """Remove what was not used for long, what is too much, and what writers that were killed have left."""
        assert self._folder is not None
        now, entries = time.time(), []
        with suppress(OSError):
            for file in self._folder.iterdir():
                with suppress(OSError):
                    used = file.stat().st_mtime
                    if file.name.startswith("."):
                        if now - used > _HOUR:
                            file.unlink()
                    elif file.suffix == _SUFFIX:
                        entries.append((used, file))
        entries.sort(reverse=True)
        for number, (used, path) in enumerate(entries):
            if number >= MAX_ENTRIES or now - used > UNUSED_DAYS * _DAY:
                with suppress(OSError):
                    path.unlink()

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            fix = "free some space" if is_disk_full(error) else f"set {VARIABLE} to a folder that can be written"
            log.warning("%s: hashes are not remembered (%s); fix: %s", self._folder, error.strerror, fix)


def _changed(entry: _Entry) -> InputError:
    return InputError(
        f"{entry.key.path}: its bytes changed though its size and time did not (sha256 was {entry.sha256[:12]}…, is "
        f"{str(entry.disputed)[:12]}…): a damaged disk, or a program that put the time back; fix: get the file again and --verify, "
        "or `touch` it if the change is meant"
    )
