"""Bar P18: Rouge-L pairs, answers of MATH and programs, scored on all cores and by one process; Rouge-L against rouge-score itself.

The texts of the pairs are drawn from the words of HumanEval's prompts, as often as they are there; the answers are the forms of
tests/helpers/expression_forms.py; the programs are HumanEval's canonical solutions, ten times each, in the sandbox. The sides take
turns, the start of their processes included. Both sides of each comparison give the same scores, or the benchmark fails.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

import report
from rouge_score.rouge_scorer import RougeScorer

from harness import tasks
from harness.metrics.code import program
from harness.metrics.math_equivalence import score_final_answers
from harness.metrics.rouge import score_responses
from harness.runs.machine import cores
from harness.sandbox import sandbox
from harness.sandbox.pool import run_all
from harness.sandbox.program import Limits
from helpers.expression_forms import FORMS, RIGHT, WRONG

WORDS = 60  # of each text of a pair, on average


def nothing() -> None:
    pass


def timed(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The shortest seconds of each side, taken in turns. ValueError where they come to different scores."""
    best: dict[str, float] = {}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            results[name] = run()
            best[name] = min(best.get(name, float("inf")), time.perf_counter() - start)
    if any(result != next(iter(results.values())) for result in results.values()):
        raise ValueError(f"different scores: {', '.join(sides)}")
    return best


def rouge(count: int, rounds: int) -> dict[str, float]:
    draw = random.Random(18)
    words = " ".join(doc["prompt"] for doc in tasks.load("humaneval").docs()).split()
    texts = [" ".join(draw.choices(words, k=draw.randint(WORDS // 2, 3 * WORDS // 2))) for _ in range(2 * count)]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    scorer = RougeScorer(["rougeL"], use_stemmer=True)

    def ours(workers: int) -> list[float | None]:
        references = [[reference] for reference, _ in pairs]
        scores = score_responses(references, [response for _, response in pairs], [], nothing, workers=workers)
        return [score.scores["rouge_l"] for score in scores]

    sides = {
        "rouge-score": lambda: [100.0 * scorer.score(*pair)["rougeL"].fmeasure for pair in pairs],
        "one process": lambda: ours(1),
        "all cores": lambda: ours(cores()),
    }
    return timed(sides, rounds)


def mathematics(count: int, rounds: int) -> dict[str, float]:
    forms = [(reference, form.replace("@", reference)) for reference, _ in RIGHT for form in FORMS.values()]
    cases = list(islice(cycle([*RIGHT, *WRONG, *random.Random(18).sample(forms, len(forms))]), count))
    references = [reference for reference, _ in cases]
    solutions = [f"It is $\\boxed{{{reference}}}$." for reference in references]

    def scored(workers: int) -> list[Any]:
        outputs = [output for _, output in cases]
        scores = score_final_answers(references, solutions, outputs, [], nothing, workers=workers)
        return [score.scores for score in scores]

    return timed({"one process": lambda: scored(1), "all cores": lambda: scored(cores())}, rounds)


def programs(count: int, rounds: int) -> dict[str, float]:
    task, isolation = tasks.load("humaneval"), sandbox().isolation
    jobs = list(islice(cycle([(program(doc, task.reference(doc)), Limits()) for doc in task.docs()]), count))

    def ran(workers: int) -> list[str]:
        return [execution.outcome for execution in run_all(jobs, isolation, workers=workers)]

    return timed({"one process": lambda: ran(1), "all cores": lambda: ran(cores())}, rounds)


def row(what: str, count: int, seconds: dict[str, float]) -> dict[str, Any]:
    one, most = seconds["one process"], seconds["all cores"]
    return {
        "what": what,
        "count": count,
        **{f"{side}, seconds": seconds.get(side, "") for side in ("rouge-score", "one process", "all cores")},
        "a minute, all cores": 60 * count / most,
        "ratio to one process": one / most,
        "ratio to rouge-score": seconds["rouge-score"] / one if "rouge-score" in seconds else "",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    options = report.parser(__doc__ or "", "python tests/benchmarks/p18_scoring.py --share 0.02 --json P18.json")
    options.add_argument("--share", type=float, default=1.0, help="of the sizes, for a quick look")
    options.add_argument("--rounds", type=int, default=2, help="turns of each side; the shortest counts")
    chosen = options.parse_args(arguments)
    parts = (("Rouge-L pairs", 10_000, rouge), ("MATH answers", 5000, mathematics), ("programs", 1640, programs))
    rows = [
        row(what, count, part(count, chosen.rounds))
        for what, size, part in parts
        for count in (max(1, int(size * chosen.share)),)
    ]
    value = {
        "rouge": rows[0]["ratio to rouge-score"],
        "mathematics": rows[1]["ratio to one process"] / cores(),
        "programs": rows[2]["ratio to one process"] / cores(),
    }
    report.publish(
        "P18",
        rows,
        value=value,
        bar={
            "rouge": "≥ 5 times as quick as rouge-score in one process, to the last digit the same",
            "mathematics": "≥ 0.7 of the cores: all cores against one process",
            "programs": "≥ 0.7 of the cores: all cores against one process",
        },
        holds=value["rouge"] >= 5 and value["mathematics"] >= 0.7 and value["programs"] >= 0.7,
        shapes=f"{cores()} cores, load {os.getloadavg()[0]:.1f} at the end",
        dtype="text",
        file=chosen.json,
    )


if __name__ == "__main__":
    main()
