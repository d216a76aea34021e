"""Run folders: where everything lies, how it is written, and what state it is in.

    DIR/run.json                                            the matrix that was run, and the records that it promises
    DIR/cells/<teacher>__<student>/<method>/seed<k>/train/  a student: model/, checkpoints while it trains
    DIR/cells/<teacher>__<student>/<method>/seed<k>/eval/<task>@v<version>/             greedy
    DIR/cells/<teacher>__<student>/<method>/seed<k>/eval/<task>@v<version>+<protocol>/  any other protocol
    DIR/cells/<teacher>/teacher/eval/<task>@v<version>/     the teacher's own scores
    DIR/artifacts/<kind>/<hash>/                            shared: world; data, tokenised; models before distillation
    DIR/.harness/                                           locks, and the specifications handed to jobs

Each output folder has `manifest.json` (identity, state, times), `log.txt` and, while it is being made, the marker `INCOMPLETE`;
trainings and evaluations have their record `result.json`, evaluations `samples.jsonl`. Files appear whole: temporary file, fsync,
rename. One lock a job: a second run waits, and then finds the work done. A killed job leaves its marker; the next one goes on from
what is there if the identity is the same, and starts from nothing otherwise.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from pydantic import BaseModel

from dskd.errors import InputError
from harness.protocols import GREEDY
from harness.runs.identity import Fingerprint, Identity

MANIFEST = "manifest.json"
RESULT = "result.json"
SAMPLES = "samples.jsonl"
LOG = "log.txt"
INCOMPLETE = "INCOMPLETE"
RUN = "run.json"

State = Literal["missing", "interrupted", "failed", "done"]


def write_text_atomic(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, even after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json_atomic(path: Path, value: Any) -> None:
    """Write JSON with sorted-as-given keys; NaN is refused with a ValueError."""
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl_atomic(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value a line."""
    write_text_atomic(path, _jsonl(rows))


def _jsonl(rows: Iterable[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


class UserFile:
    """A file of JSON lines whose path a user gave, and `option` names the path in errors.

    Made before the work whose result it is to hold: InputError where it could not be written.
    """

    def __init__(self, option: str, path: Path) -> None:
        self.option, self.path = option, path
        if path.is_dir():
            raise InputError(f"{option}: {path} is a folder; name a file")
        if self._is_special() and not os.access(path, os.W_OK):
            raise InputError(f"{option}: {path} cannot be written to; name another file")
        if not self._is_special():
            require_writable(Path(os.path.realpath(path)).parent, f"{option} {path}")

    def _is_special(self) -> bool:
        return self.path.exists() and not self.path.is_file()

    def write(self, rows: Iterable[Any]) -> None:
        """Write through a device or a pipe; otherwise a whole file or none, a link's target in the link's place."""
        text = _jsonl(rows)
        try:
            if self._is_special():
                self.path.write_text(text, encoding="utf-8")
            else:
                write_text_atomic(Path(os.path.realpath(self.path)), text)
        except OSError as error:
            raise InputError(
                f"{self.option}: {self.path} could not be written ({error.strerror}); name another file"
            ) from error


def require_writable(folder: Path, named: str) -> None:
    """InputError, which begins with `named`, unless a folder can be written to or made."""
    existing = Path(os.path.realpath(folder))
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f"{named}: {existing} is a file, not a folder; give another path")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{named}: {existing} cannot be written to; give another path")


def now() -> str:
    """The time as records write it: UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Manifest(BaseModel):
    """`manifest.json`: what an output folder holds and how it came about."""

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
    """One output of a job on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def manifest(self) -> Manifest | None:
        """The manifest, or None where there is none that can be read (a torn file counts as none)."""
        try:
            return Manifest.model_validate_json((self.path / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def state(self) -> tuple[State, Manifest | None]:
        """What is there. A folder with the marker is `interrupted`, whoever is working on it now."""
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

        Unfinished work of the same identity stays to be continued, unless `fresh`; anything else is removed.
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

    def finish(self, seconds: float, report: dict[str, Any] | None = None) -> None:
        """Declare the folder's content complete."""
        self._end("done", seconds, report=report or {})

    def fail(self, seconds: float, error: str) -> None:
        """Declare the attempt failed; what it left stays for a look and for another attempt."""
        self._end("failed", seconds, error=error)

    def _end(self, state: Literal["done", "failed"], seconds: float, **changes: Any) -> None:
        manifest = self.manifest
        if manifest is None:
            raise RuntimeError(f"{self.path}: its manifest disappeared while the job ran")
        changes |= {"state": state, "seconds": round(seconds, 3), "finished": now()}
        self._write(manifest.model_copy(update=changes))
        (self.path / INCOMPLETE).unlink(missing_ok=True)
        _sync_folder(self.path)

    def _write(self, manifest: Manifest) -> None:
        write_text_atomic(self.path / MANIFEST, manifest.model_dump_json(indent=2) + "\n")

    def require_ours(self) -> None:
        """InputError where the folder holds files that no job of ours made: they are never removed."""
        if not self.path.is_dir() or (self.path / MANIFEST).exists() or (self.path / INCOMPLETE).exists():
            return
        foreign = sorted(entry.name for entry in self.path.iterdir() if entry.name != LOG and entry.name[0] != ".")
        if foreign:
            raise InputError(
                f"{self.path}: holds files that this program did not make ({', '.join(foreign[:3])}); "
                "move them, or write to another folder"
            )

    def _clear(self) -> None:
        """Remove everything but the log and the marker, the manifest first: what is half removed must not look finished."""
        (self.path / MANIFEST).unlink(missing_ok=True)
        for entry in self.path.iterdir():
            if entry.name in {LOG, INCOMPLETE}:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


class Store:
    """The folder of one run."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def output(self, relative: str) -> OutputFolder:
        """An output folder by its path under the root."""
        return OutputFolder(self.root / relative)

    def lock(self, relative: str) -> FileLock:
        """The lock of the job whose folder this is; the system gives it back when its holder dies."""
        folder = self.root / ".harness" / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{relative.replace('/', '+')}.lock")

    def write_spec(self, job_id: str, text: str) -> Path:
        """Keep a job's specification where its process can read it."""
        name = job_id.replace("/", "+").replace(":", "+")
        path = self.root / ".harness" / "specs" / f"{name}.json"
        write_text_atomic(path, text)
        return path


def result_files(root: Path) -> list[Path]:
    """The records under a folder, in the order of their paths; what a run's jobs are working on is none."""
    return [path for path in sorted(root.rglob(RESULT)) if ".harness" not in path.parts]


def eval_folder(cell_folder: str, entry: str, version: str, protocol: str = GREEDY.name) -> str:
    """Where the evaluation of a cell lies by an entry of the matrix's `tasks`, a task's version and a protocol's name.

    Another protocol has another folder, so that none takes the place of another's results.
    """
    drawn = "" if protocol == GREEDY.name else f"+{protocol}"
    return f"cells/{cell_folder}/eval/{entry.replace('/', '+')}@v{version}{drawn}"


def train_folder(cell_folder: str) -> str:
    """Where a cell's training lies."""
    return f"cells/{cell_folder}/train"


def artifact_folder(kind: str, fingerprint: Fingerprint) -> str:
    """Where a shared artifact lies."""
    return f"artifacts/{kind}/{fingerprint.short}"
