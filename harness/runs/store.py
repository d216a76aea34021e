"""The layout of run folders, writing to them, and the states of outputs.

    DIR/run.json                                            the matrix that was run, and the records it will have
    DIR/cells/<teacher>__<student>/<method>/seed<k>/train/  a student: model/, checkpoints while it trains
    DIR/cells/<teacher>__<student>/<method>/seed<k>/eval/<task>@v<version>/             greedy
    DIR/cells/<teacher>__<student>/<method>/seed<k>/eval/<task>@v<version>+<protocol>/  any other protocol
    DIR/cells/<teacher>/teacher/eval/<task>@v<version>/     the teacher's own scores
    DIR/cells/<cell>/distances/<task>@v<version>/           distances.json, where a matrix asks for distances
    DIR/artifacts/<kind>/<hash>/                            shared: worlds, tokenized data, models before distillation
    DIR/.harness/                                           locks, leases, and the specifications of jobs
    DIR/.harness/jobs/<id>/state.json                       how far a job is (job_state.py)

Each output folder has `manifest.json` (identity, state, times), `log.txt` and, while it is being made, the marker `INCOMPLETE`.
Trainings and evaluations have their record `result.json`, evaluations also `samples.jsonl`. Files are written atomically. Each job has
a lock: a second run waits, and then finds the work done. A killed job leaves its marker. The next job resumes if the identity is the
same; otherwise it starts from nothing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from dskd.errors import InputError
from dskd.io import sync_folder, write_atomic
from harness.protocols import GREEDY
from harness.runs.identity import Fingerprint, Identity
from harness.runs.job_lock import JobLock
from harness.runs.job_spec import Made

MANIFEST = "manifest.json"
RESULT = "result.json"
SAMPLES = "samples.jsonl"
LOG = "log.txt"
INCOMPLETE = "INCOMPLETE"
RUN = "run.json"

State = Literal["missing", "interrupted", "failed", "done"]


write_text_atomic = write_atomic


def write_json_atomic(path: Path, value: Any) -> None:
    """Write JSON with the keys in their order. ValueError for NaN."""
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl_atomic(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value per line."""
    write_text_atomic(path, _jsonl(rows))


def _jsonl(rows: Iterable[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


class UserFile:
    """A file of JSON lines at a path from the user. Create it before the work whose result it will hold.

    `option` is that of the command line, for errors. InputError where the file cannot be written.
    """

    def __init__(self, option: str, path: Path) -> None:
        self.path, self.where = path, f"{option} {path}"
        self.special = path.exists() and not path.is_file()  # a device or a pipe
        if path.is_dir():
            raise InputError(f"{self.where}: is a folder; fix: name a file")
        if not self.special:
            require_writable(Path(os.path.realpath(path)).parent, self.where)
        elif not os.access(path, os.W_OK):
            raise InputError(f"{self.where}: is not writable; fix: name another file")

    def write(self, rows: Iterable[Any]) -> None:
        """Write into a device or a pipe; otherwise write the file, or the target of a link, atomically."""
        text = _jsonl(rows)
        try:
            if self.special:
                self.path.write_text(text, encoding="utf-8")
            else:
                write_text_atomic(Path(os.path.realpath(self.path)), text)
        except OSError as error:
            raise InputError(f"{self.where}: cannot be written ({error.strerror}); fix: name another file") from error


def require_writable(folder: Path, named: str) -> None:
    """Raise an InputError that begins with `named` unless the folder is writable or can be created."""
    absolute = Path(os.path.realpath(folder))
    existing = next(path for path in (absolute, *absolute.parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"{named}: {existing} is a file, not a folder; fix: give another path")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{named}: {existing} is not writable; fix: give another path")


def now() -> str:
    """The time in the form of records: UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Manifest(BaseModel):
    """`manifest.json`: what an output folder holds and how it was made."""

    kind: str
    title: str
    identity: Identity
    state: Literal["running", "done", "failed"]
    started: str
    finished: str | None = None
    seconds: float | None = None
    error: str | None = None
    report: dict[str, Any] = {}


class OutputFolder:
    """The folder of one output of a job."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def manifest(self) -> Manifest | None:
        """The manifest, or None if there is none or it cannot be read."""
        try:
            return Manifest.model_validate_json((self.path / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def state(self) -> tuple[State, Manifest | None]:
        """The state and the manifest. A folder with the marker is `interrupted`, even if a job is working on it."""
        manifest = self.manifest
        if manifest is None:
            return "missing", None
        if manifest.state == "failed":
            return "failed", manifest
        if manifest.state == "done" and not (self.path / INCOMPLETE).exists():
            return "done", manifest
        return "interrupted", manifest

    def begin(self, kind: str, title: str, fingerprint: Fingerprint, *, fresh: bool = False) -> None:
        """Mark the folder as being made.

        Unfinished work of the same identity is kept, unless `fresh`. Anything else is removed.
        """
        self.require_ours()
        state, manifest = self.state()
        same = manifest is not None and manifest.identity.hash == fingerprint.hash
        write_text_atomic(self.path / INCOMPLETE, "")
        if fresh or not (same and state in {"interrupted", "failed"}):
            self._clear()
        for name in (RESULT, SAMPLES):
            (self.path / name).unlink(missing_ok=True)
        self._write(Manifest(kind=kind, title=title, identity=fingerprint.identity, state="running", started=now()))

    def holds(self, made: Made) -> bool:
        """Whether it is done with this identity, and what other steps read of it is there."""
        state, manifest = self.state()
        same = manifest is not None and manifest.identity.hash == made.sha256
        return state == "done" and same and _is_there(self.path / (made.product or ""))

    def finish(self, seconds: float, report: dict[str, Any] | None = None) -> None:
        """Mark the folder as complete."""
        self._end(state="done", seconds=seconds, report=report or {})

    def fail(self, seconds: float, error: str) -> None:
        """Mark the attempt as failed. Its files stay for inspection and for another attempt."""
        self._end(state="failed", seconds=seconds, error=error)

    def _end(self, *, seconds: float, **changes: Any) -> None:
        manifest = self.manifest
        if manifest is None:
            raise RuntimeError(f"{self.path}: its manifest disappeared while the job ran")
        self._write(manifest.model_copy(update={**changes, "seconds": round(seconds, 3), "finished": now()}))
        (self.path / INCOMPLETE).unlink(missing_ok=True)
        sync_folder(self.path)

    def _write(self, manifest: Manifest) -> None:
        write_text_atomic(self.path / MANIFEST, manifest.model_dump_json(indent=2) + "\n")

    def require_ours(self) -> None:
        """Raise an InputError if the folder holds files that no job made. They are never removed."""
        if not self.path.is_dir() or (self.path / MANIFEST).exists() or (self.path / INCOMPLETE).exists():
            return
        foreign = sorted(entry.name for entry in self.path.iterdir() if entry.name != LOG and entry.name[0] != ".")
        if foreign:
            raise InputError(
                f"{self.path}: holds files that this program did not make ({', '.join(foreign[:3])}); "
                "fix: move them, or write to another folder"
            )

    def _clear(self) -> None:
        """Remove everything but the log and the marker; the manifest first, so that a folder never looks finished halfway."""
        (self.path / MANIFEST).unlink(missing_ok=True)
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name not in {LOG, INCOMPLETE}:
                entry.unlink()


def _is_there(product: Path) -> bool:
    """Whether a file or folder is there, with what links in it point to: a copy of a folder of links may have lost that."""
    if not product.is_dir():
        return product.exists()
    with os.scandir(product) as entries:
        return all(Path(entry).exists() for entry in entries if entry.is_symlink())


def _raise(reason: str) -> None:
    raise RuntimeError(reason)


class Store:
    """The folder of one run.

    Args:
        root: The folder.
        shared_disk: Whether several machines work in it, so that locks are leases.
        on_loss: What a process does that has lost a lease, given the reason.
    """

    def __init__(self, root: Path, *, shared_disk: bool = False, on_loss: Callable[[str], None] = _raise) -> None:
        self.root, self._shared_disk, self._on_loss = root, shared_disk, on_loss

    def output(self, relative: str) -> OutputFolder:
        """An output folder by its path under the root."""
        return OutputFolder(self.root / relative)

    def lock(self, relative: str) -> JobLock:
        """The lock of the job with this folder, which is free again when its holder dies."""
        name = relative.replace("/", "+")
        return JobLock(self.root, name, shared_disk=self._shared_disk, on_loss=self._on_loss)

    def job_folder(self, job_id: str) -> Path:
        """Where a job keeps what it says of itself."""
        return self.root / ".harness" / "jobs" / file_name_of(job_id)

    def write_spec(self, job_id: str, text: str) -> Path:
        """Write the specification of a job for its process."""
        path = self.root / ".harness" / "specs" / f"{file_name_of(job_id)}.json"
        write_text_atomic(path, text)
        return path


def file_name_of(job_id: str) -> str:
    """A job's id as the name of a file or folder."""
    return job_id.replace("/", "+").replace(":", "+")


def result_files(root: Path) -> list[Path]:
    """The record files under a folder, sorted by path."""
    aside = {".harness", "artifacts"}  # what jobs say, and scores that settings are chosen by
    return [path for path in sorted(root.rglob(RESULT)) if not aside & {*path.relative_to(root).parts}]


def eval_folder(cell_folder: str, entry: str, version: str, protocol: str = GREEDY.name) -> str:
    """The folder of an evaluation, by the entry in the matrix's `tasks`, the task's version and the protocol's name.

    Each protocol has its own folder, so that results do not replace each other.
    """
    suffix = "" if protocol == GREEDY.name else f"+{protocol}"
    return f"cells/{cell_folder}/eval/{entry.replace('/', '+')}@v{version}{suffix}"


def train_folder(cell_folder: str) -> str:
    """The folder of a cell's training."""
    return f"cells/{cell_folder}/train"


def artifact_folder(kind: str, fingerprint: Fingerprint) -> str:
    """The folder of a shared artifact."""
    return f"artifacts/{kind}/{fingerprint.short}"
