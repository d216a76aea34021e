"""Does the regression check hold what it promises? Unchanged reruns have to pass, planted defects have to be caught.

    OMP_NUM_THREADS=1 python tests/benchmarks/regression_gate.py --output runs/gate --reruns 20

Each rerun makes everything anew. A defect (tests/benchmarks/planted/) is planted into the jobs of a copy of the first run in which
what it reaches is made again; the teacher and the students' pretraining it does not reach.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from dskd.processes import python_module

PLANTED = Path(__file__).with_name("planted")
REPOSITORY = Path(__file__).parents[2]
# What a defect changes has to be made again: these cells, this part of them, and these shared artifacts.
REMADE = {
    "temperature": ("cells/*/dskd-v2*/*/*", []),
    "alignment": ("cells/*/dskd-v2-eta/*/*", ["artifacts/data"]),
    "extractor": ("cells/*/*/*/eval", []),
}


def harness(*arguments: str | Path, planted: str | None = None) -> subprocess.CompletedProcess[str]:
    path = [str(REPOSITORY)] if planted is None else [str(PLANTED / planted), str(REPOSITORY)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    command = python_module("harness.cli", *map(str, arguments))
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=REPOSITORY, check=False)


def run(folder: Path, jobs: int, planted: str | None = None) -> float:
    """Run the matrix into a folder; the seconds it took."""
    start = time.monotonic()
    arguments = ["run", "--matrix", "regression", "--jobs", str(jobs), "--allow-code-execution", "--output-dir", folder]
    done = harness(*arguments, planted=planted)
    if done.returncode != 0:
        sys.exit(f"{folder}: the run failed\n{done.stdout}{done.stderr}")
    return time.monotonic() - start


def check(folder: Path, baseline: Path, exact_outputs: str) -> tuple[int, dict[str, str]]:
    """The exit code, and the reasons by cell."""
    done = harness("check", folder, "--baseline", baseline, "--json", "--exact-outputs", exact_outputs)
    if done.returncode not in (0, 1):
        sys.exit(done.stderr)
    return done.returncode, {cell["name"]: "; ".join(cell["reasons"]) for cell in json.loads(done.stdout)["cells"]}


def plant(name: str, first: Path, folder: Path, jobs: int) -> None:
    """A copy of the first run in which what the defect reaches is made again."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(first, folder)
    cells, artifacts = REMADE[name]
    for path in [*folder.glob(cells), *(folder / artifact for artifact in artifacts)]:
        shutil.rmtree(path)
    run(folder, jobs, planted=name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--reruns", type=int, default=20)
    parser.add_argument("--defects", nargs="*", default=list(REMADE), choices=list(REMADE))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="write each planted run's scores there, as a baseline file")
    arguments = parser.parse_args()
    first, baseline = arguments.output / "first", arguments.output / "baseline.json"
    print(f"first run: {run(first, arguments.jobs):.0f} s", flush=True)
    if not baseline.exists():
        made = harness("baseline", "update", first, "--baseline", baseline, "--reason", "regression_gate.py")
        if made.returncode != 0:
            sys.exit(made.stderr)
    passed = 0
    for number in range(1, arguments.reruns + 1):
        folder = arguments.output / "rerun"
        shutil.rmtree(folder, ignore_errors=True)
        seconds = run(folder, arguments.jobs)
        code, reasons = check(folder, baseline, "strict")
        same = code == 0 and not any(reasons.values())
        passed += same
        print(f"rerun {number}: {'pass' if same else reasons}, {seconds:.0f} s", flush=True)
    print(f"{passed} of {arguments.reruns} unchanged reruns pass", flush=True)
    caught = 0
    for name in arguments.defects:
        folder = arguments.output / name
        plant(name, first, folder, arguments.jobs)
        codes = {rule: check(folder, baseline, rule) for rule in ("auto", "never")}
        caught += codes["auto"][0] == 1
        print(f"{name}: exit code {codes['auto'][0]}, by the scores alone {codes['never'][0]}", flush=True)
        for cell, reason in codes["auto"][1].items():
            if reason:
                print(f"  {cell}: {reason}", flush=True)
        if arguments.keep is not None:
            kept = arguments.keep / f"{name}.json"
            kept.unlink(missing_ok=True)
            harness("baseline", "update", folder, "--baseline", kept, "--reason", f"planted defect: {name}")
    print(f"{caught} of {len(arguments.defects)} planted defects are caught", flush=True)


if __name__ == "__main__":
    main()
