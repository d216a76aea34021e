"""The sandbox: all canonical solutions of HumanEval, each in namespaces of its own, on all cores.

The self-test is made first and shown apart: a process makes it once.
"""

from __future__ import annotations

import time
from collections import Counter

import report

from harness import tasks
from harness.runs.machine import cores
from harness.sandbox import sandbox

BAR_SECONDS = 60.0


def main() -> None:
    options = report.parser(__doc__ or "", "python tests/benchmarks/sandbox.py --json sandbox.json").parse_args()
    before = time.perf_counter()
    isolation = sandbox().isolation.name
    tested = time.perf_counter() - before
    task = tasks.load("humaneval")
    docs = task.docs()
    before = time.perf_counter()
    scores = task.score_many(docs, [task.reference(doc) for doc in docs], allow_code_execution=True)
    seconds = time.perf_counter() - before
    outcomes = Counter(score.outcome for score in scores)
    report.publish(
        "sandbox",
        [{"programs": len(docs), "seconds": seconds, "self-test seconds": tested, **outcomes}],
        value={"seconds": seconds},
        bar={"seconds": f"at most {BAR_SECONDS:.0f} on two cores"},
        holds=seconds <= BAR_SECONDS and outcomes["passed"] == len(docs),
        shapes=f"{isolation}, {cores()} cores",
        dtype="canonical solutions of HumanEval",
        file=options.json,
    )


if __name__ == "__main__":
    main()
