"""What runs on the nodes of a Ray cluster. Ray sends this module by value, so that a node's worker imports nothing of the harness."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_TELL = 1.0  # seconds between two messages of a task
_LATE = 60.0  # a network file system may show a file so many seconds late
_GRACE = 10.0


class Board:
    """Where tasks leave what jobs say, and look whether their job is to stop."""

    def __init__(self) -> None:
        self._said: list[tuple[str, dict[str, Any]]] = []
        self._stop: set[str] = set()

    def tell(self, job: str, events: list[dict[str, Any]]) -> bool:
        """Leave what a job says. Returns whether it is to stop."""
        self._said += [(job, event) for event in events]
        return job in self._stop

    def take(self, stop: list[str]) -> list[tuple[str, dict[str, Any]]]:
        """What was said since the last time; these jobs are to stop."""
        self._stop = set(stop)
        said, self._said = self._said, []
        return said


class NotHere(RuntimeError):
    """A node without what a job needs of the disk."""


def run_job(request: dict[str, Any], board: Any) -> dict[str, Any]:
    """Run a job as a process of this node, in a session of its own, to its end.

    It ends with this process, whatever ends that: it watches a pipe.

    Returns:
        `code`, `seconds`, and in `failed` what the job said of its failure.
    """
    import ray

    def tell(events: list[dict[str, Any]]) -> bool:
        try:
            return ray.get(board.tell.remote(request["job"], events), timeout=10)
        except Exception:  # of many kinds, while the board moves to another node: the job is more important
            return False

    placed = {"event": "placed", "node": ray.get_runtime_context().get_node_id(), "host": platform.node()}
    stop = tell([placed])
    _find(request)
    started = time.monotonic()
    process, progress, parent = _start(request)
    failed: dict[str, Any] = {}
    try:
        events: list[dict[str, Any]] = []
        buffer, told, asked, is_open = b"", started, False, True
        while process.poll() is None or is_open:
            if is_open and select.select([progress], [], [], 0.2)[0]:
                chunk = os.read(progress, 65536)
                is_open = bool(chunk)
                *lines, buffer = (buffer + chunk).split(b"\n")
                events += map(json.loads, lines)
            elif process.poll() is not None:
                break  # a child that is still alive holds the pipe
            elif not is_open:
                time.sleep(0.1)
            if time.monotonic() - told >= _TELL:
                failed = next((event for event in events if event["event"] == "failed"), failed)
                stop = tell(_newest(events)) or stop
                events, told = [], time.monotonic()
            if stop and not asked:
                asked = True
                _signal(process, signal.SIGTERM)
        failed = next((event for event in events if event["event"] == "failed"), failed)
        tell(_newest(events))
    except BaseException:  # the task is cancelled, or its worker is told to end
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
        raise
    finally:
        if process.poll() is None:
            _signal(process, signal.SIGKILL)
        process.wait()
        os.close(progress)
        os.close(parent)
    return {"code": process.returncode, "seconds": time.monotonic() - started, "failed": failed}


def _newest(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without progress that later progress replaces."""
    last = {event.get("stage"): index for index, event in enumerate(events) if event["event"] == "progress"}
    return [
        event
        for index, event in enumerate(events)
        if event["event"] != "failed" and (event["event"] != "progress" or last[event.get("stage")] == index)
    ]


def _find(request: dict[str, Any]) -> None:
    """Wait until this node sees what the job is told. NotHere where it never does."""
    deadline = time.monotonic() + _LATE
    spec = Path(request["spec"])
    while True:
        with contextlib.suppress(OSError):
            os.close(os.open(spec.parent, os.O_RDONLY))  # asks the server anew
            if spec.read_text(encoding="utf-8") == request["spec_text"]:
                break
        # Where not even the run's folder is seen, there is nothing to wait for but a mount that is being made.
        if time.monotonic() > deadline - (0 if Path(request["root"]).is_dir() else _LATE - 10):
            raise NotHere(
                f"{spec} is not seen on {platform.node()}; fix: give --output-dir on a disk that all nodes share"
            )
        time.sleep(0.5)
    if not Path(request["working_folder"]).is_dir():
        raise NotHere(
            f"{request['working_folder']} is not on {platform.node()}; fix: run the command in a folder that all nodes share"
        )


def _start(request: dict[str, Any]) -> tuple[subprocess.Popen[bytes], int, int]:
    """(process, where it writes its progress, the pipe that ends it when it closes)."""
    log = Path(request["log"])
    log.parent.mkdir(parents=True, exist_ok=True)
    command = list(request["command"])
    if not Path(command[0]).is_file():
        command[0] = sys.executable  # another place for the same environment
    progress_read, progress_write = os.pipe()
    parent_read, parent_write = os.pipe()
    pipes = {"HARNESS_PROGRESS_FD": str(progress_write), "HARNESS_PARENT_FD": str(parent_read)}
    # What a library finds in there of the cluster is for this worker and not for a job, which is a process of its own.
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {**own, **request["environment"], **pipes}
    try:
        with log.open("ab") as stream:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=request["working_folder"],
                pass_fds=(progress_write, parent_read),
                start_new_session=True,
            )
    except BaseException:
        os.close(progress_read)
        os.close(parent_write)
        raise
    finally:
        os.close(progress_write)
        os.close(parent_read)
    return process, progress_read, parent_write


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a job and its children, unless it has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
