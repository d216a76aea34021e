"""One of the processes that train a student together: `python -m dskd.training.worker REQUEST.json` under torchrun or `accelerate launch`.

The request holds the arguments of `dskd.training.run.train` as JSON. The first process prints `dskd-progress {...}` after each step; a
process that fails prints `dskd-error {"kind": ..., "message": ...}` once and exits non-zero. Kinds: "input", "training", "other".
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from dskd.errors import InputError, TrainingFailed

PROGRESS = "dskd-progress "
ERROR = "dskd-error "
_FOLDERS = ("data", "student", "teacher", "output", "teacher_cache")


def main(request_path: str) -> int:
    """Train as the request says, together with the other processes."""
    _die_with_launcher()
    try:
        _train(json.loads(Path(request_path).read_text(encoding="utf-8")))
    except InputError as error:
        return _fail("input", str(error))
    except TrainingFailed as error:
        return _fail("training", str(error))
    except Exception as error:
        traceback.print_exc()
        return _fail("other", f"{type(error).__name__}: {error}")
    return 0


def _train(request: dict[str, Any]) -> None:
    from dskd.training.options import TrainingOptions
    from dskd.training.run import train

    arguments = {key: value for key, value in request.items() if key != "options"}
    for key in _FOLDERS:
        if arguments.get(key) is not None:
            arguments[key] = Path(arguments[key])
    train(
        **arguments,
        options=TrainingOptions.model_validate(request["options"]),
        progress=lambda event: _print(PROGRESS + json.dumps(event)),
    )
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _fail(kind: str, message: str) -> int:
    _print(ERROR + json.dumps({"kind": kind, "message": " ".join(message.split())}))
    return 1


def _print(line: str) -> None:
    # One write: several processes share the pipe, and a line must not be torn by another's.
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _die_with_launcher() -> None:
    """End this process when what started it is gone, even by SIGKILL.

    torchrun starts its workers in sessions of their own, so killing its process group does not reach them. Gone is the parent
    (torchrun), or whoever read the output, which is seen at the pipe's other end.
    """
    parent = os.getppid()

    def watch() -> None:
        reader = select.poll()
        reader.register(1, 0)  # errors and hang-ups are always reported
        while os.getppid() == parent:
            if any(event & (select.POLLERR | select.POLLHUP) for _, event in reader.poll(500)):
                break
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="launcher-watch").start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
