"""The folder of one training run: what it was asked to do, checkpoints while it runs, the student once it is done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.io import check_writing, write_atomic

# Inside the model's folder, so that all arrive by one rename.
REPORT = "training_report.json"
LOG = "training_log.jsonl"  # a line a logged step
_REQUEST = "training_request.json"
SHARE = "share"  # in a request: of the steps, where not all are trained
_STARTS = "training_starts.json"
_ROLLOUTS = "rollouts"

# In a checkpoint: the student's texts that may be drawn again, and how often they are; names and sizes of all files.
REPLAY = "replay.json"
_FILES = "complete.json"
_KEPT = 2  # checkpoints: what the system had not written when the power went is missing in the last


class RunFolder:
    """`checkpoints/` and `training_request.json` while a run goes on; `model/` with its report once it is done; `rollouts/`.

    Of several processes the first alone calls `begin` and `finish`, and `last_good_checkpoint` before the others do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "model"
        self.checkpoints = path / "checkpoints"

    def finished(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The report of this very training if it is done, else None; InputError where the folder holds another, or a strange model."""
        self._require(request)
        if not self.model.is_dir():
            return None
        report = self.model / REPORT
        if not report.is_file():
            raise InputError(
                f"{self.model}: holds a model that no training wrote; fix: give another folder, or remove it"
            )
        return json.loads(report.read_text(encoding="utf-8"))

    def require_same(self, request: dict[str, Any]) -> None:
        """InputError where the folder holds another training than this one or a share of it."""
        self._require(request, but=SHARE)

    def _require(self, request: dict[str, Any], but: str = "") -> None:
        if not (self.path / _REQUEST).is_file():
            return
        before = json.loads((self.path / _REQUEST).read_text(encoding="utf-8"))
        now = json.loads(json.dumps(request))
        if changed := sorted(
            key for key in before.keys() | now.keys() if key != but and before.get(key) != now.get(key)
        ):
            raise InputError(
                f"{self.path}: holds a training with another {', '.join(changed)}; fix: give another folder, or remove it"
            )

    def begin(self, request: dict[str, Any], start: Path | None = None) -> None:
        """Make the folder and write down what is to be done in it.

        `start`: The folder of a run that did a share of the same, whose last checkpoint this one goes on from where it has none.
        """
        shutil.rmtree(self.path / "checkpoints.dropped", ignore_errors=True)
        write_atomic(self.path / _REQUEST, json.dumps(request, indent=2) + "\n")
        if start is not None and not self.checkpoints.is_dir():
            self._copy_from(start)

    def _copy_from(self, start: Path) -> None:
        """Copy the checkpoints and texts of another run; checkpoints last, in one rename, so that a killed copy is made again."""
        if not (start / self.checkpoints.name).is_dir():
            return
        copied = self.path / "checkpoints.copied"
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(start / self.checkpoints.name, copied)
        if (start / _ROLLOUTS).is_dir():
            shutil.copytree(start / _ROLLOUTS, self.path / _ROLLOUTS, dirs_exist_ok=True)
        copied.rename(self.checkpoints)

    def last_good_checkpoint(self, processes: int | None = None) -> Path | None:
        """The newest checkpoint that is whole, of all `processes` where it says how many; damaged ones are removed."""
        if not self.checkpoints.is_dir():
            return None
        shutil.rmtree(unfinished(self.checkpoints), ignore_errors=True)
        found = _by_step(self.checkpoints)
        while found and not _is_whole(found[-1], processes):
            # Another process may have removed it, or part of it, in between.
            shutil.rmtree(found.pop(), ignore_errors=True)
        return found[-1] if found else None

    def started(self, step: int) -> int:
        """Write down that a start goes on from `step`; how many starts in a row got no further than the one before them."""
        path = self.path / _STARTS
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        stalled = 0
        if before is not None:
            stalled = before["stalled"] + 1 if before["step"] == step else max(before["stalled"] - 1, 0)
        write_atomic(path, json.dumps({"step": step, "stalled": stalled}) + "\n")
        return stalled

    def rollouts(self, process: int, step: int) -> Path:
        """The file of the texts that a process's student writes, without what was written after `step`, which a run writes again."""
        path = self.path / _ROLLOUTS / f"{process}.jsonl"
        before = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        # Only the last line can be torn.
        kept = [line for line in before if line.endswith(b"\n") and json.loads(line)["step"] <= step]
        write_atomic(path, b"".join(kept))
        return path

    def finish(
        self,
        save: Callable[[Path], None],
        report: dict[str, Any],
        log: Sequence[dict[str, Any]] = (),
        *,
        goes_on: bool = False,
    ) -> None:
        """Put the student in place in one rename, its report and logged steps too, then drop what only a resumed run would need.

        `goes_on`: Keep the checkpoints, for a run that does more of the same.
        """
        unfinished = self.path / "model.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        save(unfinished)
        # With sorted keys: what a checkpoint has kept comes back in that order.
        lines = [json.dumps(entry, sort_keys=True) + "\n" for entry in log]
        (unfinished / LOG).write_text("".join(lines), encoding="utf-8")
        (unfinished / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        check_writing()
        unfinished.rename(self.model)
        if self.checkpoints.is_dir() and not goes_on:
            dropped = self.path / "checkpoints.dropped"
            shutil.rmtree(dropped, ignore_errors=True)
            self.checkpoints.rename(dropped)  # a half-removed checkpoint must not look like a good one
            shutil.rmtree(dropped)
        (self.path / _STARTS).unlink(missing_ok=True)


def unfinished(checkpoints: Path) -> Path:
    """Where the next checkpoint is written, until all processes have written theirs."""
    return checkpoints / "unfinished"


def complete(checkpoints: Path, step: int) -> None:
    """Move the checkpoint of a step among the others, whole, and remove the oldest."""
    name = f"checkpoint-{step}"
    folder = unfinished(checkpoints) / name
    files = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    # Nothing is waited for until it is on the disk. After a power failure a file may be shorter than it was.
    (folder / _FILES).write_text(json.dumps(files), encoding="utf-8")
    folder.replace(checkpoints / name)
    for old in _by_step(checkpoints)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _by_step(checkpoints: Path) -> list[Path]:
    return sorted(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def _is_whole(checkpoint: Path, processes: int | None) -> bool:
    """Whether every file has the size that it was written with, and each of the processes has one."""
    try:
        files = json.loads((checkpoint / _FILES).read_text(encoding="utf-8"))
        whole = all((checkpoint / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError):
        return False
    loops = [name for name in files if name.startswith("loop_state")]
    return whole and bool(loops) and processes in (None, len(loops))
