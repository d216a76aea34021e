"""Functions that tests have run in scoring processes: well behaved ones, and ones that do what hostile text might make a library do."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import time
from pathlib import Path

from harness.metrics.math_verification import judge
from harness.metrics.sample import SampleScore


def length(text: str) -> int:
    return len(text)


def scored(text: str) -> SampleScore:
    return SampleScore({"accuracy": 100.0 * (text == "yes")}, {"answer": text}, "scored", weights={"accuracy": 2})


def misbehave(how: str) -> int:
    """Do what is asked for; a "refused" kind names a file or a port that must not come to be."""
    kind, _, what = how.partition(" ")
    if kind == "spin":
        while True:
            pass
    if kind == "number":
        return len(str(9 ** (9**9)))  # one operation, in which no signal handler of Python's runs
    if kind == "sleep":
        time.sleep(3600)
    if kind == "memory":
        return len("x" * (3 << 30))
    if kind == "exit":
        os._exit(0)
    if kind == "raise":
        raise ValueError(f"not {what}\udc00")
    if kind == "recurse":
        return misbehave(how)
    return len(how)


def attempt(how: str) -> bool:
    """Try what scoring never does."""
    kind, _, what = how.partition(" ")
    path = Path(what)
    actions = {
        "write": lambda: path.write_text("x"),
        "append": lambda: path.open("a"),
        "create": lambda: os.open(path, os.O_CREAT | os.O_WRONLY),
        "remove": lambda: path.with_suffix(".kept").unlink(),
        "rename": lambda: path.with_suffix(".kept").rename(path),
        "mkdir": lambda: path.mkdir(),
        "system": lambda: os.system(f"touch {path}"),
        "popen": lambda: subprocess.run(["touch", str(path)], check=False),
        "exec": lambda: os.execv("/usr/bin/touch", ["touch", str(path)]),
        "spawn": lambda: os.posix_spawn("/usr/bin/touch", ["touch", str(path)], {}),
        "fork": lambda: os.fork() or path.write_text("x"),
        "socket": lambda: socket.create_connection(("127.0.0.1", 9)),
        "ctypes": lambda: ctypes.CDLL(None).system(f"touch {path}".encode()),
        "kill": lambda: os.kill(os.getppid(), 0),
    }
    actions[kind]()
    return True


def import_math_verify() -> None:
    """What the preparation of a process would be without the guards of `harness.metrics.math_verification`."""
    import math_verify  # noqa: F401


def run_by_an_answer(question: tuple[str, str, str]) -> bool:
    """Whether the answer of the question changed a class of this process, once it was compared."""
    judge(question)
    return hasattr(type(help), "__getitem__")
