"""Bar P19: a run with warm workers against the same run by other code or by cold workers, and the engine's own time for each job.

`--against TREE` is another checkout, whose own code runs its own matrix there (for the code before warm workers: `git worktree add TREE
124fb72`); without it, this code runs with cold workers. The sides take turns, each in a new folder. Beside wall time there is the
processor time of all processes, which other programs on the machine change less. The engine's own time is that of jobs that do nothing,
one after the other, without the start of the server.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import report

from harness.executors.local import Executor, Options
from harness.runs.machine import cores
from harness.scheduling.executor import Settings
from harness.scheduling.runner import Runner
from helpers.executor_runs import Recorder
from helpers.paths import PYTHONPATH, ROOT
from helpers.told_jobs import told

MAIN = "from harness.cli import main; main()"
BARS = {"wall": "≤ 0.5 of the time before", "own time, warm": "< 0.3 s a job"}
LIBRARIES = ("torch", "transformers")  # of jobs that do nothing; their start is not counted


def one_run(tree: Path, arguments: Sequence[str]) -> tuple[float, float]:
    """(seconds, processor seconds) of `harness run` by the code of a checkout, into a new folder. CalledProcessError if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", MAIN, "run", *arguments, "--allow-code-execution", "--output-dir", folder]
        start, before = time.perf_counter(), processor()
        subprocess.run(command, check=True, cwd=folder, env={**os.environ, "PYTHONPATH": str(tree)}, stdout=sys.stderr)
        return time.perf_counter() - start, processor() - before


def processor() -> float:
    """Processor seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def own_time(count: int, *, warm: bool) -> float:
    """Seconds for each of so many jobs that do nothing, one after the other, from the end of the first to the end of the last."""
    os.environ["PYTHONPATH"] = PYTHONPATH
    with tempfile.TemporaryDirectory() as folder:
        jobs = told(Path(folder), count + 1, uses=LIBRARIES)
        executor, ends = Executor(Settings(Path(folder), options=Options(warm=warm))), Ends()
        executor.check(jobs)
        Runner(executor, ends, jobs=1).run(jobs)
    return (ends.times[-1] - ends.times[0]) / count


class Ends(Recorder):
    """Remembers when jobs ended. ValueError for one that was not done."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def ended(self, job: object, outcome: object) -> None:
        """Note the time."""
        if getattr(outcome, "status", None) != "done":
            raise ValueError(str(outcome))
        self.times.append(time.perf_counter())


def main(arguments: Sequence[str] | None = None) -> None:
    options = report.parser(__doc__ or "", "python tests/benchmarks/p19_engine.py --against ../before --json P19.json")
    options.add_argument("--against", type=Path, metavar="TREE", help="a checkout to compare with")
    options.add_argument("--matrix", default="quick", help="what both run")
    options.add_argument(
        "--rounds", type=int, default=2, help="turns of each side; the shortest counts; 0 for own time alone"
    )
    options.add_argument("--count", type=int, default=50, help="jobs that do nothing")
    chosen = options.parse_args(arguments)
    run = ["--matrix", chosen.matrix]
    other = (chosen.against.resolve(), run) if chosen.against else (ROOT, [*run, "--executor-option", "warm=false"])
    sides, measured = {"before": other, "warm": (ROOT, run)}, dict[str, list[tuple[float, float]]]()
    for _ in range(chosen.rounds):
        for name, (tree, asked) in sides.items():
            measured.setdefault(name, []).append(one_run(tree, asked))
    rows = [
        {"what": f"{chosen.matrix}, {name}", "seconds": min(all_)[0], "processor seconds": min(cpu for _, cpu in all_)}
        for name, all_ in measured.items()
    ]
    value = {}
    for warm in (True, False):
        name = "warm" if warm else "cold"
        value[f"own time, {name}"] = own_time(chosen.count if warm else max(1, chosen.count // 10), warm=warm)
        rows.append({"what": f"a job that does nothing, {name}", "seconds": value[f"own time, {name}"]})
    if measured:
        value["wall"] = rows[1]["seconds"] / rows[0]["seconds"]
        value["processor"] = rows[1]["processor seconds"] / rows[0]["processor seconds"]
    report.publish(
        "P19",
        [{"processor seconds": "", **row} for row in rows],
        value=value,
        bar={key: text for key, text in BARS.items() if key in value},
        holds=value["own time, warm"] < 0.3 and value.get("wall", 0.0) <= 0.5,
        shapes=f"{cores()} cores, load {os.getloadavg()[0]:.1f} at the end",
        dtype="processes",
        file=chosen.json,
    )


if __name__ == "__main__":
    main()
