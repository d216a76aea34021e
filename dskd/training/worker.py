"""One of the processes that train a student together: `python -m dskd.training.worker REQUEST.json` under torchrun or `accelerate launch`.

The request holds the arguments of `dskd.training.run.train` as JSON. The first process prints `dskd-progress {...}` after each step; a
process that fails prints `dskd-error {"kind": ..., "message": ...}` once and exits non-zero. Kinds: "input", "training", "memory",
"not_finite" (a loss), "lost" (what the work needs is gone), "stopped" (with "step", exit code 75), "other" (with "may_pass").

SIGTERM, SIGUSR1 and a file REQUEST.json.stop ask it to stop after its step and a checkpoint, all processes together.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dskd import training
from dskd.errors import InputError, NotFinite, OutOfMemory, PartnerLost, Stopped, TrainingFailed, may_pass
from dskd.processes import StopRequest, exit_with_parent
from dskd.teachers.options import TeacherSource

PROGRESS = "dskd-progress "
ERROR = "dskd-error "
STOPPED = 75  # exit code; EX_TEMPFAIL of sysexits.h
_KINDS = (
    (InputError, "input"),
    (OutOfMemory, "memory"),
    (PartnerLost, "lost"),
    (NotFinite, "not_finite"),
    (TrainingFailed, "training"),
)
_FOLDERS = ("data", "student", "teacher", "output", "teacher_cache", "reference", "start")


def main(request_path: str) -> int:
    """Train as the request says, together with the other processes."""
    # torchrun starts its workers in sessions of their own, so ending its process group does not reach them. The launcher is gone with
    # the parent (torchrun), or with the reader of the output.
    exit_with_parent(parent=os.getppid(), descriptor=1)
    stop = StopRequest(stop_file(request_path))
    try:
        _train(json.loads(Path(request_path).read_text(encoding="utf-8")), stop)
    except Stopped as stopped:
        _fail("stopped", str(stopped), step=stopped.step)
        return STOPPED
    except (InputError, TrainingFailed) as error:
        return _fail(next(kind for known, kind in _KINDS if isinstance(error, known)), str(error))
    except Exception as error:
        traceback.print_exc()
        return _fail("other", f"{type(error).__name__}: {error}", may_pass=may_pass(error))
    return 0


def stop_file(request_path: str) -> Path:
    """The file that asks the processes of a request to stop."""
    return Path(f"{request_path}.stop")


def _train(request: dict[str, Any], stop: Callable[[], bool]) -> None:
    arguments = {key: value for key, value in request.items() if key != "options"}
    arguments |= {key: Path(request[key]) for key in _FOLDERS if request.get(key) is not None}
    if request.get("teacher_source") is not None:
        arguments["teacher_source"] = TeacherSource.model_validate(request["teacher_source"])
    arguments["teachers"] = [TeacherSource.model_validate(each) for each in request.get("teachers") or ()]
    training.train(
        **arguments,
        options=training.TrainingOptions.model_validate(request["options"]),
        progress=lambda event: _print(PROGRESS + json.dumps(event)),
        stop=stop,
    )
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _fail(kind: str, message: str, **more: Any) -> int:
    _print(ERROR + json.dumps({"kind": kind, "message": " ".join(message.split()), **more}))
    return 1


def _print(line: str) -> None:
    # One write: several processes share the pipe, and a line must not be torn by another's.
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
