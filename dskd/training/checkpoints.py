"""The folder of one training run: what it was asked to do, checkpoints while it runs, the student once it is done."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.io import check_writing, write_atomic

# Inside the model's folder, so that all arrive by one rename.
REPORT = "training_report.json"
LOG = "training_log.jsonl"  # a line a logged step
_REQUEST = "training_request.json"


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
        if (self.path / _REQUEST).is_file():
            before = json.loads((self.path / _REQUEST).read_text(encoding="utf-8"))
            now = json.loads(json.dumps(request))
            if before != now:
                changed = ", ".join(sorted(key for key in now if before.get(key) != now[key]))
                raise InputError(
                    f"{self.path}: holds a training with another {changed}; fix: give another folder, or remove it"
                )
        if not self.model.is_dir():
            return None
        report = self.model / REPORT
        if not report.is_file():
            raise InputError(
                f"{self.model}: holds a model that no training wrote; fix: give another folder, or remove it"
            )
        return json.loads(report.read_text(encoding="utf-8"))

    def begin(self, request: dict[str, Any]) -> None:
        """Make the folder and write down what is to be done in it."""
        shutil.rmtree(self.path / "checkpoints.dropped", ignore_errors=True)
        write_atomic(self.path / _REQUEST, json.dumps(request, indent=2) + "\n")

    def last_good_checkpoint(self, processes: int | None = None) -> Path | None:
        """The newest checkpoint that was written to its end, by all `processes` where it says how many; torn ones are removed."""
        if not self.checkpoints.is_dir():
            return None
        found = sorted(self.checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        while found and not _is_whole(found[-1], processes):
            # Another process may have removed it, or part of it, in between.
            shutil.rmtree(found.pop(), ignore_errors=True)
        return found[-1] if found else None

    def rollouts(self, process: int, step: int) -> Path:
        """The file of the texts that a process's student writes, without what was written after `step`, which a run writes again."""
        path = self.path / "rollouts" / f"{process}.jsonl"
        before = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        # Only the last line can be torn.
        kept = [line for line in before if line.endswith(b"\n") and json.loads(line)["step"] <= step]
        write_atomic(path, b"".join(kept))
        return path

    def finish(self, save: Callable[[Path], None], report: dict[str, Any], log: Sequence[dict[str, Any]] = ()) -> None:
        """Put the student in place in one rename, its report and logged steps too, then drop what only a resumed run would need."""
        unfinished = self.path / "model.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        save(unfinished)
        (unfinished / LOG).write_text("".join(json.dumps(entry) + "\n" for entry in log), encoding="utf-8")
        (unfinished / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        check_writing()
        unfinished.rename(self.model)
        if self.checkpoints.is_dir():
            dropped = self.path / "checkpoints.dropped"
            shutil.rmtree(dropped, ignore_errors=True)
            self.checkpoints.rename(dropped)  # a half-removed checkpoint must not look like a good one
            shutil.rmtree(dropped)


# One of these, by what spreads the optimizer: nothing or DDP, FSDP2, DeepSpeed (which writes `latest` after its shards).
_OPTIMIZERS = ("optimizer.pt", "optimizer.bin", "latest")


def _is_whole(checkpoint: Path, processes: int | None) -> bool:
    """The trainer's state is the last file that the first process writes; the others' random states may come after it."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    weights = [*checkpoint.glob("model*.safetensors"), *checkpoint.glob("adapter_model*.safetensors")]
    optimizer = any((checkpoint / name).is_file() for name in _OPTIMIZERS)
    states = [*checkpoint.glob("rng_state*.pth")]
    enough = len(states) == processes if processes else bool(states)
    # torch.save writes a zip file, whose directory comes last: one that was cut off has none.
    return bool(weights) and optimizer and enough and all(map(zipfile.is_zipfile, states))
