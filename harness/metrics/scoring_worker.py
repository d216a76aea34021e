"""The process that scores hostile text: `python -m harness.metrics.scoring_worker`, started by `harness.metrics.scoring_processes`.

It is given a function and then items, one after another, on standard input: eight bytes with a length, then a pickle. It answers
each with a line of JSON, which the parent can read whatever became of this process. Limits come first: of memory, files and, for
each item, the processor's time. Then a hook refuses what scoring never does, and ends the process.
"""

from __future__ import annotations

import ctypes  # noqa: F401 - imported before the hook, which refuses what its import does
import importlib
import json
import os
import pickle
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from dskd.processes import exit_with_parent

HEADER = 8  # bytes of the length before each pickle
REFUSED = 77  # exit status of a process that tried what scoring never does
OUT_OF_MEMORY = b'{"memory": true}'
_IDLE_SECONDS = 60.0
_OPEN_FILES = 64
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Audit events (docs.python.org, "Audit events table") by the beginning of their names. Reading files and importing is allowed.
_NEVER = (
    *(
        "subprocess.",
        "os.system",
        "os.exec",
        "os.fork",
        "os.posix_spawn",
        "os.spawn",
        "os.startfile",
        "os.kill",
        "pty.",
    ),
    *("socket.", "http.", "urllib.", "ftplib.", "smtplib.", "imaplib.", "poplib.", "webbrowser.", "syslog."),
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.utime", "os.chdir"),
    *("os.chmod", "os.chown", "os.lchown", "os.chflags", "os.lchflags", "os.setxattr", "os.removexattr", "os.lockf"),
    *(
        "shutil.",
        "tempfile.",
        "ctypes.",
        "mmap.",
        "fcntl.",
        "sqlite3.",
        "resource.",
        "sys.addaudithook",
        "code.__new__",
    ),
)


@dataclass(frozen=True)
class Setup:
    """What a worker is for: functions as (module, name), the folder that their modules are imported from, and the limits."""

    function: tuple[str, str]
    prepare: tuple[str, str] | None
    folders: tuple[str, ...]
    parent: int
    seconds: float
    memory: int


def main() -> None:
    answers = os.dup(1)
    setup: Setup = pickle.loads(next(_frames()))
    exit_with_parent(parent=setup.parent)
    sys.dont_write_bytecode = True
    sys.path.extend(setup.folders)
    function = _function(setup.function)
    if setup.prepare is not None:
        _function(setup.prepare)()
    # What is printed from here on is the text of a library about an answer, and nobody reads it.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    _limit(setup.memory)
    _refuse_what_scoring_never_does(answers)
    _answer(answers, _line(ready=True))
    for frame in _frames():
        answer = _result(function, pickle.loads(frame), setup.seconds)
        _answer(answers, answer)
        if answer == OUT_OF_MEMORY:
            return  # what is left of this process may lack memory for the next item as well


def _frames() -> Iterator[bytes]:
    """What the parent sends, until it closes the pipe, or sends nothing for a while."""
    incoming = select.poll()
    incoming.register(0, select.POLLIN)
    while incoming.poll(1000 * _IDLE_SECONDS) and (header := _read(HEADER)):
        yield _read(int.from_bytes(header, "big"))


def _read(size: int) -> bytes:
    """Return the next bytes of standard input; fewer where it ends."""
    parts = []
    while size and (part := os.read(0, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _answer(descriptor: int, answer: bytes) -> None:
    unsent = memoryview(answer + b"\n")
    while unsent:
        unsent = unsent[os.write(descriptor, unsent) :]


def _function(name: tuple[str, str]) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(importlib.import_module(name[0]), name[1])
    return found


def _result(function: Callable[[Any], Any], item: Any, seconds: float) -> bytes:
    # The kernel ends the process at the end of this time, even inside of a single operation on huge numbers.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        result = function(item)
        return _line(result=asdict(result) if is_dataclass(result) and not isinstance(result, type) else result)
    except MemoryError:
        return OUT_OF_MEMORY
    except Exception:  # said in the sample's detail, with which it counts as neither right nor wrong
        said = traceback.format_exc().strip().splitlines()[-1][:500]
        return _line(error=said.encode("utf-8", "backslashreplace").decode("utf-8"))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _line(**answer: Any) -> bytes:
    return json.dumps(answer).encode("ascii")


def _limit(memory: int) -> None:
    """Bound what this process may take: so much memory more than it has now, no new files, no core file, few open files."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    statm = Path("/proc/self/statm")
    if statm.is_file():
        size = int(statm.read_text().split()[0]) * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _refuse_what_scoring_never_does(answers: int) -> None:
    """End this process at the first attempt to start another, to open a connection or to change a file.

    Nothing that scores evaluates an answer, so that this is a second wall: no sandbox, which `runs_code` tasks have.
    """

    def refuse(
        event: str,
        arguments: tuple[Any, ...],
        *,
        never: tuple[str, ...] = _NEVER,
        write: Callable[[int, bytes], int] = os.write,
        end: Callable[[int], Any] = os._exit,
    ) -> None:
        if event == "open":
            mode, flags = arguments[1], arguments[2]
            if not (isinstance(flags, int) and flags & _WRITES) and not (
                isinstance(mode, str) and set(mode) & set("wax+")
            ):
                return
        elif not event.startswith(never):
            return
        write(answers, b'{"refused": "%s"}\n' % event.encode("ascii", "replace"))
        end(REFUSED)

    sys.addaudithook(refuse)


if __name__ == "__main__":
    main()
