"""What of a run's folder nothing needs any more: found, measured and removed. What is needed is told by the caller (`Kept`).

Only `artifacts/`, `cells/` and `.harness/` are looked at, and of these only what jobs have written. No symbolic link is followed:
what lies behind one belongs to others. What jobs use is not removed: each folder goes while its job's lock is held.

A folder is first renamed into `.harness/removed/`, and so is gone at once: one that is removed halfway never looks finished.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from dskd.errors import InputError
from harness.runs.store import INCOMPLETE, LOG, MANIFEST, OutputFolder, Store

Kind = Literal["artifact", "cell", "checkpoints", "answers", "rollouts", "temporary", "spec", "job state", "lock"]

REMOVED = ".harness/removed"
_OWN_LOCK = "gc"
# Of a training: what one that goes on, or a person, still needs, and what nobody does.
_CHECKPOINTS, _ROLLOUTS, _STUDENT, _LEFTOVERS = (
    "checkpoints",
    "rollouts",
    "model",
    ("checkpoints.dropped", "checkpoints.copied", "model.unfinished"),
)
_ANSWERS, _STAGES = "answers.jsonl", "stages"
# `dskd.io.write_atomic` names what it writes so until it is whole.
_TEMPORARY = re.compile(
    r"\.(?:[^/]+\.(?:json|jsonl|txt|md|yaml|html|csv|arrow|npy|safetensors|bin)|INCOMPLETE)\.[a-z0-9_]{8}"
)
_WRITTEN_SECONDS = 3600.0  # a younger one may belong to a writer


@dataclass(frozen=True)
class Kept:
    """What of a run is needed.

    Attributes:
        outputs: the folders of outputs that something refers to, under the root.
        expected: the folders of outputs that the run's matrices have.
        jobs: the ids of the jobs that belong to these, as their files in `.harness` are called (`file_name`).
        folders: the folders of these jobs, by which their locks are called.
    """

    outputs: frozenset[str]
    expected: frozenset[str]
    jobs: frozenset[str]
    folders: frozenset[str]


@dataclass(frozen=True)
class Item:
    """One thing that can go.

    Attributes:
        kind: What it is.
        path: Where, under the root.
        why: The reason in words.
        job: The folder of the job whose lock guards it; None where nobody writes there.
        size: Bytes that its removal frees.
    """

    kind: Kind
    path: str
    why: str
    job: str | None = None
    size: int = 0


def file_name(job_id: str) -> str:
    """How files and folders of a job in `.harness` are called."""
    return job_id.replace("/", "+").replace(":", "+")


def job_folder(output: str) -> str:
    """The folder of the job that makes an output: evaluations of one cell are one job, and so are its distances from one teacher."""
    parts = output.split("/")
    if parts[0] != "cells":
        return "/".join(parts[:3])  # artifacts/KIND/HASH, which may have an output for each task
    return "/".join(parts[:-1]) if "eval" in parts or "distances" in parts else output


def outputs_under(root: Path, top: str) -> Iterator[str]:
    """The folders of outputs in a part of a run (`cells` or `artifacts`), sorted; links are not followed."""
    if (root / top).is_symlink():
        return
    for place, folders, files in os.walk(root / top):
        folders.sort()
        if MANIFEST in files or INCOMPLETE in files:
            folders.clear()
            yield Path(place).relative_to(root).as_posix()


def running(root: Path) -> list[str]:
    """The folders of the jobs that run now, as far as locks say."""
    held = []
    for path in sorted((root / ".harness" / "locks").glob("*.lock")):
        if path.stem == _OWN_LOCK:
            continue
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            held.append(path.stem.replace("+", "/"))
        except OSError:  # a folder that may only be read: nobody runs a job there by this user's rights
            continue
    return held


@dataclass
class Search:
    """A search for what can go.

    Attributes:
        root: the folder of the run.
        kept: what is needed.
        unfinished: whether checkpoints of trainings that have not ended well may go.
        rollouts: whether the texts that students wrote in finished trainings may go.
        dropped: outputs of cells that are to go, which are in none of the matrices.
    """

    root: Path
    kept: Kept
    unfinished: bool = False
    rollouts: bool = False
    dropped: Collection[str] = ()
    _found: list[Item] = field(default_factory=list)

    def run(self) -> list[Item]:
        """All that can go, with its size."""
        self._found = []
        self._outputs()
        self._control_files()
        self._temporary_files()
        return with_sizes(self.root, self._found)

    def _add(self, kind: Kind, path: str, why: str, job: str | None = None) -> None:
        self._found.append(Item(kind, path, why, job))

    def _outputs(self) -> None:
        for top in ("artifacts", "cells"):
            for output in outputs_under(self.root, top):
                state, manifest = OutputFolder(self.root / output).state()
                title = manifest.title if manifest is not None else "unfinished"
                if output in self.dropped:
                    self._add("cell", output, f"{title}: in no matrix of the run", job_folder(output))
                elif top == "artifacts" and output not in self.kept.outputs:
                    self._add("artifact", output, f"{title}: nothing refers to it", output)
                else:
                    self._parts(output, state)
        self._begun()

    def _begun(self) -> None:
        """Folders of artifacts in which nothing but a log was written."""
        for folder in self._own_folders("artifacts", "*/*"):
            relative = folder.relative_to(self.root).as_posix()
            if relative not in self.kept.expected and [entry.name for entry in folder.iterdir()] == [LOG]:
                self._add("artifact", relative, "nothing but a log: its job was killed as it began", relative)

    def _parts(self, output: str, state: str) -> None:
        """What is in the folder of an output that stays."""
        job = job_folder(output)
        for name in _LEFTOVERS:
            self._part("temporary", output, name, "a training was killed at its end", job)
        if state == "done":
            self._part("checkpoints", output, _CHECKPOINTS, "the training is done", job)
            self._part("checkpoints", output, _STAGES, "the model is done", job)
            self._part("answers", output, _ANSWERS, "the evaluation is done", job)
            if self.rollouts:
                self._part("rollouts", output, _ROLLOUTS, "the training is done", job)
        elif self.unfinished:
            self._part("checkpoints", output, _CHECKPOINTS, f"the training is {state}", job)
            self._part("checkpoints", output, _STAGES, f"the model is {state}", job)

    def _part(self, kind: Kind, output: str, name: str, why: str, job: str) -> None:
        if (self.root / output / name).exists():
            self._add(kind, f"{output}/{name}", why, job)

    def _control_files(self) -> None:
        own = {folder.replace("/", "+") for folder in self.kept.folders} | {_OWN_LOCK}
        for path in self._own_folders(".harness", "removed/*"):
            self._add("temporary", path.relative_to(self.root).as_posix(), "a removal was killed")
        for kind, pattern, known in (
            ("spec", "specs/*.json", self.kept.jobs),
            ("job state", "jobs/*", self.kept.jobs),
            ("lock", "locks/*.lock", own),
        ):
            for path in sorted((self.root / ".harness").glob(pattern)):
                name = path.name if kind == "job state" else path.name.rpartition(".")[0]
                if name not in known and not path.is_symlink() and not path.name.startswith("."):
                    self._add(kind, path.relative_to(self.root).as_posix(), "of a job that is gone")  # type: ignore[arg-type]

    def _temporary_files(self) -> None:
        gone = {item.path for item in self._found}
        oldest = time.time() - _WRITTEN_SECONDS
        for top in ("artifacts", "cells", ".harness"):
            if (self.root / top).is_symlink():
                continue
            for place, folders, files in os.walk(self.root / top):
                relative = Path(place).relative_to(self.root).as_posix()
                folders[:] = sorted(name for name in folders if f"{relative}/{name}" not in gone)
                for name in filter(_TEMPORARY.fullmatch, sorted(files)):
                    with suppress(FileNotFoundError):
                        if Path(place, name).lstat().st_mtime < oldest:
                            self._add("temporary", f"{relative}/{name}", "its writer was killed")

    def _own_folders(self, top: str, pattern: str) -> Iterator[Path]:
        if not (self.root / top).is_symlink():
            for path in sorted((self.root / top).glob(pattern)):
                if path.is_dir() and not any(each.is_symlink() for each in (path, path.parent)):
                    yield path


def with_sizes(root: Path, items: Sequence[Item]) -> list[Item]:
    """The items with what their removal frees, in bytes: a file of several names counts once, and only if none of them stays."""
    files = [[*_files(root / item.path)] for item in items]
    names = Counter((status.st_dev, status.st_ino) for found in files for status in found)
    counted: set[tuple[int, int]] = set()
    sized = []
    for item, found in zip(items, files, strict=True):
        size = 0
        for status in found:
            inode = status.st_dev, status.st_ino
            if inode not in counted and status.st_nlink <= names[inode]:
                counted.add(inode)
                size += status.st_size
        sized.append(replace(item, size=size))
    return sized


def _files(path: Path) -> Iterator[os.stat_result]:
    """The status of each file under a path, or of the file there; of links themselves, not of what they point to."""
    if not path.is_dir() or path.is_symlink():
        yield path.lstat()
        return
    for place, _, names in os.walk(path):
        for name in names:
            yield Path(place, name).lstat()


def remove(root: Path, items: Iterable[Item]) -> list[str]:
    """Remove these items.

    Args:
        root: The folder of the run.
        items: Of `Search.run`, just now.

    Returns:
        A message for each item that stays, because a job has begun to use it.

    Raises:
        InputError: Where a job runs there, or another removal; nothing is removed then.
    """
    store, kept = Store(root), []
    with ExitStack() as alone:
        own = store.lock(_OWN_LOCK)
        if not own.try_acquire():
            raise InputError(f"{root}: another `harness gc` removes there; fix: wait until it is done")
        alone.enter_context(own.held())
        if jobs := running(root):
            more = f" (and {len(jobs) - 1} more)" if len(jobs) > 1 else ""
            raise InputError(
                f"{root}: a job is running, {jobs[0]}{more}; fix: wait until the run has ended, or stop it"
            )
        for item in items:
            if item.job is None:
                _discard(root, item.path)
                continue
            lock = store.lock(item.job)
            if not lock.try_acquire():
                kept.append(f"{item.path}: stays, a job has just begun there")
                continue
            with lock.held():
                _discard(root, item.path)
                if item.kind in {"artifact", "cell"}:
                    lock.path.unlink(missing_ok=True)  # while it is held: who waits for it makes a new one
    return kept


def _discard(root: Path, relative: str) -> None:
    path, removed = root / relative, root / REMOVED
    try:
        if not path.is_dir() or path.is_symlink():
            path.unlink(missing_ok=True)
            return
        if path.parent != removed:
            removed.mkdir(parents=True, exist_ok=True)
            aside = removed / relative.replace("/", "+")
            shutil.rmtree(aside, ignore_errors=True)  # of a removal that was killed
            path.rename(aside)
            _remove_empty(path.parent, root)
            path = aside
        shutil.rmtree(path)
        _remove_empty(removed, root / ".harness")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be removed ({error.strerror}); fix: correct its rights, and remove again"
        ) from None


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove a folder that holds nothing, and those above it of which that is then true too, up to `top`."""
    while folder != top:
        try:
            folder.rmdir()
        except OSError:  # it holds something, or is gone
            return
        folder = folder.parent
