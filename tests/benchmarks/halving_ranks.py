"""Does a part of a training rank settings as the whole of it does? Of a run whose trials were ranked at several shares of their steps.

    harness run --matrix tuned.yaml                 # with halving: true
    harness run --matrix tuned.yaml                 # and with halving: false, into the same folder
    python tests/benchmarks/halving_ranks.py runs/tuned [--share 0.25]

For each method: Spearman's correlation of the validation scores of the same trials at the share and at the end, the score at the end of the
trial that is best at the share, of the half that is kept, of the best, and of the mean of all, which is what a blind choice gets.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean

from scipy.stats import spearmanr


def rankings(run: Path) -> dict[str, dict[float, dict[int, float]]]:
    """{method of a pair: {share of the steps: {trial: validation score}}}, of rankings of all trials."""
    found: dict[str, dict[float, dict[int, float]]] = defaultdict(dict)
    for path in sorted(run.glob("artifacts/rankings/*/ranking.json")):
        title = json.loads((path.parent / "manifest.json").read_text(encoding="utf-8"))["title"]
        records = [each["record"] for each in json.loads(path.read_text(encoding="utf-8"))["ranking"]]
        scores = {each["trial"]: each["score"] for each in records if each["score"] is not None}
        share = float(records[0]["share"])
        if len(scores) > len(found[title.partition(": ")[0]].get(share, {})):
            found[title.partition(": ")[0]][share] = scores
    return dict(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--share", type=float, default=0.25)
    given = parser.parse_args()
    rows = []
    for method, shares in rankings(given.run).items():
        early, late = shares.get(given.share, {}), shares.get(1.0, {})
        both = sorted(early.keys() & late.keys())
        if len(both) < 4:
            continue
        ranked = sorted(both, key=lambda trial: -early[trial])
        kept = ranked[: (len(both) + 1) // 2]
        correlation = float(spearmanr([early[trial] for trial in both], [late[trial] for trial in both]).statistic)
        ends = [late[trial] for trial in both]
        rows.append(
            (method, len(both), correlation, late[ranked[0]], max(late[t] for t in kept), max(ends), mean(ends))
        )
    if not rows:
        raise SystemExit(
            f"{given.run}: no method whose trials were ranked at {given.share:g} of their steps and at the end"
        )
    print(
        f"| method | trials | rank correlation | first at {given.share:g} | best of the half that is kept | best | mean |"
    )
    print("|---|---|---|---|---|---|---|")
    for method, number, *values in rows:
        print(f"| {method} | {number} | {values[0]:.2f} | " + " | ".join(f"{value:.1f}" for value in values[1:]) + " |")
    columns = [mean(column) for column in list(zip(*rows, strict=True))[2:]]
    print(f"| mean | | {columns[0]:.2f} | " + " | ".join(f"{value:.1f}" for value in columns[1:]) + " |")


if __name__ == "__main__":
    main()
