"""A run that is killed every 15 seconds against the same run undisturbed: the ratio of their times, and whether the same came out.

    PYTHONPATH=tests python tests/benchmarks/p20_killed.py [--every 15] [--matrix quick] [--only method=kd] [--json FILE]

Every kill ends harness and jobs at once with SIGKILL, and the same command is run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path

from helpers.killed_runs import outcome_of, run_and_kill, start


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=float, default=15.0)
    parser.add_argument("--matrix", default="quick")
    parser.add_argument("--only", action="append", help="cells; by default one student of quick")
    parser.add_argument("--engine", default="transformers")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cells = arguments.only or ["method=sft", "method=teacher", "student=small-student"]
    only = [part for each in cells for part in ("--only", each)]
    matrix = str(Path(arguments.matrix).resolve()) if Path(arguments.matrix).exists() else arguments.matrix
    command = ["run", "--matrix", matrix, "--engine", arguments.engine, "--allow-code-execution", *only]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        begun = time.monotonic()
        code = start([*command, "--output-dir", "whole"], folder).wait()
        undisturbed = time.monotonic() - begun
        if code:
            raise SystemExit((folder / "printed.txt").read_text())
        print(f"undisturbed: {undisturbed:.1f} s", flush=True)
        moments = itertools.repeat((arguments.every, "harness"))
        killed = run_and_kill(
            [*command, "--output-dir", "killed"], folder, folder / "killed", moments, limit=20 * undisturbed, say=print
        )
        same = outcome_of(folder / "whole") == outcome_of(folder / "killed")
    ratio = killed.seconds / undisturbed
    print(
        f"killed {len(killed.kills)} times, every {arguments.every:g} s: {killed.seconds:.1f} s, {ratio:.2f} times as long"
    )
    print(f"the same results: {same}; outputs made twice: {len(killed.twice)}")
    if arguments.json:
        found = {"undisturbed": undisturbed, "ratio": ratio, "kills": len(killed.kills), "same": same}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if not same or killed.twice:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
