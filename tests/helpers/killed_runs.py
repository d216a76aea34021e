"""Runs that are killed at any moment, and what of their results may not depend on that."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from harness.results.load import load_results
from harness.tables.leaderboard import make_leaderboard
from harness.tables.render import markdown
from helpers.paths import PYTHONPATH

# Of a record: what it cost and where it was made. Everything else says what came out.
_VARIES = ("cost", "environment")


def outcome_of(root: Path) -> dict[str, str]:
    """What came out of a run, by file: records without cost and environment, samples, logs and weights, and the leaderboard's text."""
    found = {}
    for path in sorted(root.glob("cells/**/*")):
        name = str(path.relative_to(root))
        if path.name == "result.json":
            record = json.loads(path.read_text(encoding="utf-8"))
            for trial in record.get("tuning", {}).get("trials", ()):
                del trial["seconds"]
            found[name] = json.dumps({key: value for key, value in record.items() if key not in _VARIES})
        elif path.name in {"samples.jsonl", "training_log.jsonl"} or path.suffix == ".safetensors":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    results = load_results(root)
    found["leaderboard"] = markdown(make_leaderboard(results.records, results.items))
    return found


def done(root: Path) -> dict[str, int]:
    """The outputs that are finished: of each the time at which its manifest was last written."""
    found = {}
    for path in root.rglob("manifest.json"):
        with contextlib.suppress(ValueError, FileNotFoundError):
            if json.loads(path.read_text(encoding="utf-8"))["state"] == "done":
                found[str(path.parent.relative_to(root))] = path.stat().st_mtime_ns
    return found


def start(command: Sequence[str], folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    """`harness COMMAND` in a folder, in a session of its own; what it prints goes to printed.txt there."""
    with (folder / "printed.txt").open("ab") as printed:
        return subprocess.Popen(
            [sys.executable, "-m", "harness.cli", *command],
            cwd=folder,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": PYTHONPATH, "NO_COLOR": "1", "OMP_NUM_THREADS": "1", **environment},
            # A suite that a shell started in the background ignores SIGINT, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


@dataclass
class Killed:
    """How a run went that was killed. kills: who was killed; seconds: of all its lives together; twice: outputs that were made again."""

    kills: list[str] = field(default_factory=list)
    seconds: float = 0.0
    twice: list[str] = field(default_factory=list)


def run_and_kill(
    command: Sequence[str],
    folder: Path,
    root: Path,
    moments: Iterator[tuple[float, str]],
    *,
    limit: float = 3600,
    say: Callable[[str], Any] = lambda line: None,
) -> Killed:
    """Run a command again and again until it ends by itself with code 0.

    moments: for each life the seconds after which who (`harness`, `worker` or `both`) is killed with SIGKILL; when a worker alone is
    killed, the same life goes on to the next moment. After the last one it may run to its end.
    """
    killed, begun = Killed(), time.monotonic()
    known: dict[str, int] = {}
    moment = next(moments, None)
    while True:
        process = start(command, folder)
        alive = True
        while alive:
            left = None if moment is None else moment[0]
            try:
                code = process.wait(left)
            except subprocess.TimeoutExpired:
                assert moment is not None
                alive = _kill(process, moment[1], root)
                killed.kills.append(moment[1])
                say(f"{time.monotonic() - begun:.0f} s: killed {moment[1]}; {len(known)} outputs done")
                moment = next(moments, None)
                known = _made_again(root, known, killed)
                assert time.monotonic() - begun < limit, f"not done after {limit:.0f} s"
                continue
            known = _made_again(root, known, killed)
            if code == 0:
                killed.seconds = time.monotonic() - begun
                return killed
            raise AssertionError(f"ended with code {code}: {(folder / 'printed.txt').read_text()[-3000:]}")


def _made_again(root: Path, known: dict[str, int], killed: Killed) -> dict[str, int]:
    now = done(root)
    killed.twice += [name for name, moment in known.items() if now.get(name) != moment]
    return now


def _kill(process: subprocess.Popen[bytes], who: str, root: Path) -> bool:
    """Kill; returns whether the harness itself still lives."""
    workers = []
    with contextlib.suppress(psutil.NoSuchProcess):
        workers = psutil.Process(process.pid).children(recursive=True)
    # The processes of jobs, and not one that runs a generated program: that would be the program's own end.
    jobs = [each for each in workers if each.pid in _jobs(root)]
    if who in {"worker", "both"} and jobs:
        with contextlib.suppress(psutil.NoSuchProcess):
            random.choice(jobs).kill()
    if who in {"harness", "both"}:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        # They see that it is gone, within a second.
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert not alive, f"processes outlive the harness: {[each.cmdline() for each in alive]}"
        return False
    return True


def _jobs(root: Path) -> set[int]:
    """The process ids of the jobs that run, by their states."""
    found = set()
    for path in root.glob(".harness/jobs/*/state.json"):
        with contextlib.suppress(ValueError, FileNotFoundError):
            state = json.loads(path.read_text(encoding="utf-8"))
            if state["state"] in {"starting", "running"}:
                found.add(state["pid"])
    return found
