"""Runs one untrusted program: a script that `harness.code_execution` starts in a fresh interpreter and never imports.

Arguments: the program's file, the descriptor to read the nonce from, the one to write the verdict to, the process to
die with, and the limits (resource number = value). Writes a line "started" once the limits hold, and then one line: the
nonce if the program ran to its end, otherwise an outcome and what was raised.

Few imports on purpose: a task starts it hundreds of times.
"""

import ctypes
import os
import resource
import sys

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
SIGKILL = 9


def main() -> None:
    """Apply the limits, run the program and report."""
    path, nonce_descriptor, verdict_descriptor, parent = sys.argv[1], *map(int, sys.argv[2:5])
    # The program may replace any of these; the runner keeps its own references.
    write, read, exit_now = os.write, os.read, os._exit
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib is slow to import
        source = file.read().decode("utf-8", "surrogatepass")
    for limit in sys.argv[5:]:
        number, value = map(int, limit.split("="))
        _, most = resource.getrlimit(number)
        if most != resource.RLIM_INFINITY:
            value = min(value, most)
        resource.setrlimit(number, (value, value))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for option, argument in ((PR_SET_NO_NEW_PRIVS, 1), (PR_SET_PDEATHSIG, SIGKILL)):
        if prctl(option, argument, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl({option})")
    if os.getppid() != parent:  # it died before the request to die with it
        exit_now(1)
    if "random" in source:
        import random

        random.seed(0)
    sys.argv[1:] = []
    write(verdict_descriptor, b"started\n")
    verdict = run(source)
    # The nonce is read only now, so that no frame of the program's stack held it while it ran.
    write(verdict_descriptor, verdict or read(nonce_descriptor, 64))
    exit_now(0)  # threads the program left alive and functions it registered for the exit do not run


def run(source: str) -> bytes:
    """Return nothing if the program ran to its end, otherwise the outcome and what was raised."""
    try:
        code = compile(source, "<program>", "exec")
    except MemoryError as error:
        return line("memory", error)
    except (SyntaxError, ValueError, RecursionError, OverflowError) as error:  # ValueError: null bytes, lone surrogates
        return line("syntax_error", error)
    try:
        exec(code, {})  # as the field does: an empty namespace, so that __name__ is not "__main__"
    except MemoryError as error:
        return line("memory", error)
    except (AssertionError, SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        return line("failed", error)
    except BaseException as error:
        return line("exception", error)
    return b""


def line(outcome: str, error: BaseException) -> bytes:
    """Return one short line; the text of an exception may itself raise."""
    try:
        text = str(error)[:200]
    except BaseException:
        text = ""
    return f"{outcome} {type(error).__name__}: {text}".encode("ascii", "backslashreplace").replace(b"\n", b" ") + b"\n"


if __name__ == "__main__":
    main()
