"""The mean over the tasks of every row of a leaderboard, the best first: `python tests/benchmarks/task_means.py results/leaderboard`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.results.load import load_results
from harness.tables.leaderboard import make_leaderboard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a run, a folder of several runs, or an export")
    board = make_leaderboard(load_results(parser.parse_args().folder).records)
    for teacher, student in board.pairs:
        means = {}
        for method in board.methods(teacher, student):
            rows = [board.find(teacher, student, method, task) for task in board.tasks]
            values = [row.value for row in rows if row is not None and row.value is not None]
            if len(values) == len(board.tasks):  # a mean of fewer tasks is of something else
                means[method] = sum(values) / len(values)
        print(f"\n{teacher} -> {student}, mean of {len(board.tasks)} tasks")
        for method, mean in sorted(means.items(), key=lambda each: -each[1]):
            print(f"  {method:28} {mean:5.1f}")


if __name__ == "__main__":
    main()
