"""The self-test: programs that really try what a sandbox is to prevent, run before the first sample.

A probe passes if the program ended as it should; what it could have done is also looked for from outside.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.sandbox.isolation import Isolation
from harness.sandbox.isolation.base import VARIABLES
from harness.sandbox.isolation.namespaces import OWN_PROCESSES
from harness.sandbox.pool import run_all
from harness.sandbox.program import Limits, Program

HELD = "held"
# A machine may be busy: these ask whether something works, not how fast.
PATIENT = Limits(seconds=30.0)
# What must hold wherever programs are run at all; the rest must where the isolation promises it.
ALWAYS = ("verdicts", "time", "memory", "survivors")


@dataclass(frozen=True)
class _Probe:
    name: str
    source: str
    expected: str = "passed"
    limits: Limits = PATIENT
    tests: str = ""


def self_test(isolation: Isolation) -> dict[str, str]:
    """Return for each probe "held" or what happened instead.

    Probes: verdicts (a right program passes, a wrong one fails), network, files (to write outside the scratch folder), secrets
    (files and environment of the user, to read), processes (a small fork bomb), memory, time, survivors (a child that leaves its
    session).
    """
    marker = secrets.token_hex(8)
    with (
        tempfile.TemporaryDirectory(prefix="harness-probe-") as folder,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        (Path(folder) / "secret").write_text(marker)
        probes = _probes(folder, server.getsockname()[1], marker)
        jobs = [(Program(p.source, p.tests, ("f",) if p.tests else ()), p.limits) for p in probes]
        executions = run_all(jobs, isolation)
        results: dict[str, str] = {}
        for probe, execution in zip(probes, executions, strict=True):
            results.setdefault(probe.name, HELD)
            if execution.outcome != probe.expected:
                ended = f"ended as {execution.outcome}, not {probe.expected} ({execution.detail})"
                results[probe.name] = ended
        if sorted(path.name for path in Path(folder).iterdir()) != ["secret"]:
            results["files"] = "a program wrote outside its folder"
        if results["survivors"] == HELD and (alive := _alive(marker)):
            results["survivors"] = f"process {alive} outlived its program"
    return results


def failures(isolation: Isolation, results: dict[str, str]) -> dict[str, str]:
    """Those of the results for which this isolation must not be used."""
    return {name: what for name, what in results.items() if what != HELD and (isolation.isolates or name in ALWAYS)}


def _probes(folder: str, port: int, marker: str) -> list[_Probe]:
    return [
        _Probe("verdicts", "def f(x): return x + 1", tests="assert f(1) == 2"),
        _Probe("verdicts", "def f(x): return x + 2", tests="assert f(1) == 2", expected="failed"),
        _Probe("network", _NETWORK.format(port=port)),
        _Probe("files", _FILES.format(folder=folder)),
        _Probe("secrets", _SECRETS.format(folder=folder, harness=os.getpid(), names=VARIABLES)),
        _Probe("processes", _PROCESSES.format(most=PATIENT.processes, own=OWN_PROCESSES)),
        _Probe("memory", f"bytearray({PATIENT.memory + (1 << 28)})", expected="memory"),
        _Probe("time", "while True: pass", expected="timeout", limits=Limits(seconds=0.5)),
        _Probe("survivors", _SURVIVORS.format(marker=marker)),
    ]


def _alive(marker: str) -> int | None:
    """The number of a process with the marker among its arguments; one that was just killed may take a moment to go."""
    deadline = time.monotonic() + 2.0
    while True:
        found = [p.pid for p in psutil.process_iter(["cmdline"]) if marker in (p.info["cmdline"] or ())]
        if not found or time.monotonic() > deadline:
            return found[0] if found else None
        time.sleep(0.02)


_NETWORK = """
import socket
reached = []
# The second sends nothing: to connect a datagram socket only looks for a way.
for kind, address in ((socket.SOCK_STREAM, ("127.0.0.1", {port})), (socket.SOCK_DGRAM, ("192.0.2.1", 9))):
    try:
        socket.socket(socket.AF_INET, kind).connect(address)
        reached.append(address[0])
    except OSError:
        pass
assert not reached, f"{{' and '.join(reached)}} within reach"
"""

_FILES = """
import os, sys
written = []
for path in ({folder!r} + "/new", {folder!r} + "/secret", os.__file__, "/usr/harness-probe", "/harness-probe"):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        written.append(path)
    except OSError:
        pass
for path in ("/usr/harness-probe", "/harness-probe"):
    if path in written:
        os.remove(path)
assert not written, f"could write {{len(written)}} of 5 files outside its folder"
open("inside", "w").write("x")
"""

_SECRETS = """
import os
read = []
for path in ({folder!r} + "/secret", "/proc/{harness}/environ", "/proc/{harness}/mem"):
    try:
        open(path, "rb").close()
        read.append("a file of the user" if path.endswith("secret") else path.rpartition("/")[2] + " of the harness")
    except OSError:
        pass
read += [name for name in os.environ if name not in {names!r}]
assert not read, f"could read {{', '.join(read)}}"
"""

# The limit leaves room for the processes of our own, which may not have started yet on a busy machine, or have ended.
_PROCESSES = """
import os, time
started = 0
try:
    for _ in range({most} + 16):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        started += 1
except OSError:
    pass
assert started <= {most} + {own}, f"could start {{started}} processes"
"""

# Ends only when its child, in a session of its own, says that it runs.
_SURVIVORS = """
import os, sys
reader, writer = os.pipe()
os.set_inheritable(writer, True)
try:
    child = os.fork()
except OSError:
    child = None
if child == 0:
    os.setsid()
    if os.fork() == 0:
        code = f"import os, time; os.write({{writer}}, b'x'); time.sleep(60)"
        os.execv(sys.executable, [sys.executable, "-S", "-c", code, {marker!r}])
    os._exit(0)
if child is not None:
    assert os.read(reader, 1) == b"x"
"""
