"""Does the check of fixed models tell a change of the code from another processor? Unchanged reruns have to pass, defects be caught.

    PYTHONPATH=tests python tests/benchmarks/fixed_models_gate.py --reruns 4

Other processors are simulated: another number of threads, and instructions that torch, oneDNN and MKL are told to do without. Each
setting is a process of its own, in which the check is made `--reruns` times; the defects (tests/helpers/planted_defects.py) are planted in
a process that uses the oldest instructions.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from helpers.paths import PYTHONPATH, ROOT
from helpers.planted_defects import DEFECTS, planted

BASELINE = ROOT / "results" / "regression" / "fixed"
OLDEST = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}  # threads that wait do not take the cores of others
SETTINGS: dict[str, dict[str, str]] = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two threads": {"OMP_NUM_THREADS": "2", **PATIENT},
    "AVX": {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX", "MKL_CBWR": "AVX"},
    "SSE": {"OMP_NUM_THREADS": "1", **OLDEST},
    "SSE, four threads": {"OMP_NUM_THREADS": "4", **OLDEST, **PATIENT},
}
# What a defect is looked for in: enough to have each kind of cell.
METHODS = ("sft", "kd", "dskd-v2-eta", "opd")


def check(folder: Path, methods: tuple[str, ...] | None = None, models: tuple[str, ...] | None = None) -> object:
    """The report of a check, of all cells or of these methods and models alone."""
    from harness.regression.fixed.baseline import measure, read_fixed_baseline
    from harness.regression.fixed.check import check_fixed
    from harness.regression.fixed.first_steps import cell_of
    from harness.regression.fixed.folder import MODELS, FixedFolder
    from harness.regression.fixed.outputs import LogitGaps

    fixed = FixedFolder(folder)
    baseline = read_fixed_baseline(fixed)
    before = baseline.behaviour
    if methods is not None:
        before.first_steps = {cell_of(name): before.first_steps[cell_of(name)] for name in methods}
    if models is not None:
        before.outputs = {cell: each for cell, each in before.outputs.items() if cell.split("/")[0] in models}
    found = measure(fixed, allow_code_execution=True, methods=methods, models=models or MODELS)
    return check_fixed(baseline, found, LogitGaps(fixed))


def rerun(folder: Path, times: int) -> None:
    """Check unchanged code, and print what came of it."""
    for _ in range(times):
        start = time.process_time()
        report = check(folder)
        largest = max(cell.largest or 0.0 for cell in report.cells)
        ties, seconds = sum(cell.ties for cell in report.cells), time.process_time() - start
        told = f"{len(report.cells)} cells, {ties} near-ties, largest difference {largest:.1g}, {seconds:.0f} s of processor"
        print(f"{report.verdict}: {told}", flush=True)
        for cell in report.cells:
            for reason in cell.reasons:
                print(f"  {cell.name}: {reason}", flush=True)


def plant(folder: Path, names: list[str]) -> None:
    """Check with one defect after the other."""
    for name in names:
        with planted(name):
            report = check(folder, METHODS, ("same",))
        caught = [cell for cell in report.cells if cell.verdict == "regress"]
        print(f"{report.verdict}: {name}: {len(caught)} of {len(report.cells)} cells", flush=True)
        for cell in caught:
            print(f"  {cell.name}: {cell.reasons[0]}", flush=True)


def start(settings: dict[str, str], *arguments: str) -> list[str]:
    """Run this file in a process with these settings; its lines, which are also printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), PYTHONPATH]), **settings}
    command = [sys.executable, "-P", __file__, *arguments]
    lines = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(f"  {line}", end="", flush=True)
            lines.append(line)
    if process.returncode != 0:
        sys.exit("the check itself failed")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    parser.add_argument("--reruns", type=int, default=4, help="in each setting")
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--defects", nargs="*", default=list(DEFECTS), choices=list(DEFECTS))
    parser.add_argument("--here", choices=["rerun", "plant"], help="in this process, with the settings that it has")
    arguments = parser.parse_args()
    if arguments.here == "rerun":
        rerun(arguments.baseline, arguments.reruns)
        return
    if arguments.here == "plant":
        plant(arguments.baseline, arguments.defects)
        return
    passed, baseline = 0, ["--baseline", str(arguments.baseline)]
    for name in arguments.settings if arguments.reruns else []:
        print(name, flush=True)
        lines = start(SETTINGS[name], "--here", "rerun", "--reruns", str(arguments.reruns), *baseline)
        passed += sum(line.startswith("pass: ") for line in lines)
    print(f"{passed} of {len(arguments.settings) * arguments.reruns} unchanged reruns pass", flush=True)
    if arguments.defects:
        lines = start(SETTINGS["SSE"], "--here", "plant", "--defects", *arguments.defects, *baseline)
        caught = sum(line.startswith("regress: ") for line in lines)
        print(f"{caught} of {len(arguments.defects)} planted defects are caught", flush=True)


if __name__ == "__main__":
    main()
