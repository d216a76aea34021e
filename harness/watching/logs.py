"""The logs of a cell or of a job: found by a part of its name, and read while they are written."""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dskd.errors import InputError
from harness.runs.store import LOG
from harness.suggestions import did_you_mean
from harness.watching.snapshot import cell_of
from harness.watching.status import Status
from harness.watching.text import plain

_MOST_NAMES = 20


@dataclass(frozen=True)
class Wanted:
    """What is to be shown. folders: those with its logs, in the order of its work; jobs: the ids of the jobs that write them."""

    name: str
    folders: tuple[str, ...]
    jobs: tuple[str, ...]


def find(status: Status, asked: str) -> Wanted:
    """The cell or job that is meant: by its name, its last parts, a part of it that only one has, a job's id or its title.

    InputError where there is none, or several.
    """
    root, asked = status.snapshot.root, asked.strip("/")
    known = _known(status)
    tests: tuple[Callable[[_Named], bool], ...] = (
        lambda each: asked in {each.name, *each.also},
        lambda each: not each.is_part and f"/{asked}/" in f"/{each.name}/",
        lambda each: not each.is_part and asked in each.name,
    )
    for test in tests:
        found = list(dict.fromkeys(each.wanted for each in known if test(each)))
        if len(found) == 1:
            return found[0]
        if found:
            names = sorted(wanted.name for wanted in found)
            more = ", …" if len(names) > 5 else ""
            raise InputError(
                f"{asked}: {len(names)} have this in their name ({', '.join(names[:5])}{more}); fix: say more"
            )
    names = sorted({each.name for each in known if not each.is_part})
    near = did_you_mean(asked, names)
    if len(names) > _MOST_NAMES:  # the list of all would fill the screen
        near = near.partition(" (known: ")[0] if "did you mean" in near else "; fix: harness status lists them"
    raise InputError(f"{root}: no cell or job '{asked}'{near}")


@dataclass(frozen=True)
class _Named:
    """What can be meant. also: other whole names of it; is_part: a job of a cell, which is only meant by a whole name."""

    name: str
    wanted: Wanted
    also: tuple[str, ...] = ()
    is_part: bool = False


def _known(status: Status) -> list[_Named]:
    """Cells, shared artifacts and jobs."""
    cells: dict[str, list[str]] = {}
    ids: dict[str, list[str]] = {}
    for output in status.outputs:
        if (cell := cell_of(output.folder)) is not None:
            cells.setdefault(cell, []).append(output.folder)
    for job in status.jobs:
        if (cell := cell_of(job.folder)) is not None:
            ids.setdefault(cell, []).append(job.id)
    known = []
    for cell, folders in cells.items():
        work = [f"cells/{cell}/train", f"cells/{cell}/eval", *sorted(folders)]
        jobs = ids.get(cell) or [f"train:{cell}", f"evaluate:{cell}"]
        known.append(_Named(cell, Wanted(cell, tuple(dict.fromkeys(work)), tuple(jobs))))
    made = set()
    for job in status.jobs:
        made.update(job.outputs)
        is_part, all_folders = cell_of(job.folder) is not None, tuple(dict.fromkeys((job.folder, *job.outputs)))
        name, also = (job.id, job.title) if is_part else (job.title, job.id)
        known.append(_Named(name, Wanted(name, all_folders, (job.id,)), (also, job.folder), is_part))
    for output in status.outputs:  # of runs that nothing else is known of
        if cell_of(output.folder) is None and output.folder not in made:
            name = output.title or output.folder
            known.append(_Named(name, Wanted(name, (output.folder,), ()), (output.folder,)))
    return known


def logs_of(root: Path, wanted: Wanted) -> list[Path]:
    """The logs that are there. An evaluation of several tasks has one, and copies of it beside each result are left out."""
    found: list[Path] = []
    for folder in wanted.folders:
        path = root / folder / LOG
        covered = any(path != other and path.is_relative_to(other.parent) for other in found)
        if path.is_file() and not covered:
            found.append(path)
    return found


@dataclass
class _Reading:
    position: int = 0
    inode: int | None = None


class Growing:
    """Gives what comes into logs; one that another file replaces, or that is cut, is read from its beginning."""

    def __init__(self) -> None:
        self._readings: dict[Path, _Reading] = {}

    def skip(self, path: Path, position: int) -> None:
        """What lies before this position has been shown."""
        self._readings[path] = _Reading(position, path.stat().st_ino)

    def new(self, paths: Iterable[Path]) -> Iterator[tuple[Path, bytes]]:
        """What is new in these logs, in their order."""
        for path in paths:
            reading = self._readings.setdefault(path, _Reading())
            try:
                with path.open("rb") as stream:
                    found = os.fstat(stream.fileno())
                    if reading.inode not in (None, found.st_ino) or found.st_size < reading.position:
                        reading.position = 0
                    reading.inode = found.st_ino
                    stream.seek(reading.position)
                    content = stream.read()
            except FileNotFoundError:
                continue
            reading.position += len(content)
            if content:
                yield path, content


class Printable:
    """Text of a log for a terminal, line by line: what a line has of control sequences is only known at its end."""

    _MOST = 2**16  # of a line that does not end

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, content: bytes) -> str:
        """The whole lines that this completes. A bar that is drawn over itself becomes lines."""
        text = self._held + self._decoder.decode(content).replace("\r\n", "\n").replace("\r", "\n")
        whole = text.rfind("\n") + 1 or (len(text) if len(text) > self._MOST else 0)
        self._held = text[whole:]
        return plain(text[:whole])

    def rest(self) -> str:
        """What is left, with an end."""
        text, self._held = plain(self._held), ""
        return text + "\n" if text else ""


def tail(path: Path, lines: int) -> tuple[bytes, int]:
    """(the last lines of a file, the position of its end)."""
    with path.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        start, content = end, b""
        while lines and start > 0 and content.count(b"\n") <= lines:
            start = max(0, end - max(2**16, 2 * (end - start)))
            stream.seek(start)
            content = stream.read(end - start)
    kept = content.splitlines(keepends=True)[-lines:] if lines else []
    return b"".join(kept), end
