"""Results with a known truth, for claims: methods whose means are given, with seeds, on several tasks, on pairs of both kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.claims.claims_file import ClaimsFile
from harness.results.item_scores import Items, Results
from harness.runs.identity import Identity
from harness.runs.records import Counts, MetricValue, Record, RecordCell
from harness.runs.store import RESULT, SAMPLES, write_jsonl_atomic, write_text_atomic
from harness.tuning.records import TrialRecord, TuningRecord
from helpers.written_runs import ENVIRONMENT

TASKS = ("code", "math")
MATCHED = {"student": True}


def planted(
    means: Mapping[str, float],
    *,
    students: Mapping[str, bool] = MATCHED,
    seeds: Sequence[int] = (1, 2, 3, 4, 5),
    tasks: Sequence[str] = TASKS,
    items: int = 100,
    seed_sd: float = 1.0,
    budgets: Mapping[str, dict[str, Any]] | None = None,
    leave_out: Sequence[tuple[str, str]] = (),
    lower_is_better: bool = False,
    protocol: Any = None,
) -> Results:
    """Scores of 0 and 100 whose means are about these.

    Args:
        means: {method: the mean of its scores}; names that end with +tuned get the record of a tuning.
        students: {student: whether it has the teacher's vocabulary}.
        seeds: Of each method.
        tasks: Each of `items` items.
        items: Of a task.
        seed_sd: How far the seeds' means are apart, in points.
        budgets: {tuned method: its budget} where it is not 8 trials.
        leave_out: (method, task) without records.
        lower_is_better: Of the metric.
        protocol: Of decoding; None is greedy.
    """
    records: list[Record] = []
    scores: dict[str, Items] = {}
    for student, matched in students.items():
        for method, mean in means.items():
            for seed in seeds:
                random = np.random.default_rng([*f"{student} {method}".encode(), seed])
                cell = RecordCell(teacher="teacher", student=student, method=method, seed=seed)
                records.append(_training(cell, matched, (budgets or {}).get(method, {"trials": 8})))
                of_seed = random.normal(0, seed_sd)
                for number, task in enumerate(tasks):
                    if (method, task) in leave_out:
                        continue
                    easy = np.random.default_rng(number).normal(0, 20, items)
                    right = 100 * random.random(items) < mean + of_seed + easy - easy.mean()
                    record, found = _evaluation(cell, task, 100.0 * right, lower_is_better, protocol)
                    records.append(record)
                    scores[record.cell.key] = found
    return Results(records, scores, [])


def _training(cell: RecordCell, matched: bool, budget: dict[str, Any]) -> Record:
    parts = {
        "method": cell.method.partition("+")[0],
        "seed": cell.seed,
        "data": {"student_tokenizer": "one" if matched else "two", "teacher_tokenizer": "one"},
        "student": cell.student,
    }
    tuning = None
    if cell.method.endswith("+tuned"):
        tuning = TuningRecord(
            rule="the best", budget=budget, halving=False, seed=0, trial_seed=1_000_000, space={"kd_rate": "0 to 1"},
            chosen=0, settings={}, score=50.0, default_score=50.0, teacher={"code": 90.0},
            trials=[TrialRecord(trial=0, share=1.0, score=50.0)],
        )  # fmt: skip
    return Record(cell=cell, identity=Identity.of(parts), status="done", environment=ENVIRONMENT, tuning=tuning)


def _evaluation(cell: RecordCell, task: str, values: np.ndarray, lower: bool, protocol: Any) -> tuple[Record, Items]:
    cell = cell.model_copy(update={"task": task, "task_version": "1", "protocol": protocol})
    cell = RecordCell.model_validate(cell.model_dump())
    record = Record(
        cell=cell,
        identity=Identity.of({"model": {"seed": cell.seed, "method": cell.method}, "task": task}),
        status="done",
        n=Counts(total=len(values), scored=len(values), invalid=0, truncated=0, harness_error=0),
        headline="right",
        metrics={"right": MetricValue(value=float(values.mean()), n=len(values), higher_is_better=not lower)},
        environment=ENVIRONMENT,
    )
    ids = tuple(map(str, range(len(values))))
    return record, Items(ids, ("",) * len(ids), {"right": tuple(map(float, values))})


def write_planted(results: Results, root: Path) -> Path:
    """The same as a run's folder."""
    for record in results.records:
        cell = record.cell
        folder = root / "cells" / f"{cell.teacher}__{cell.student}" / cell.method / f"seed{cell.seed}"
        folder = folder / "train" if cell.task is None else folder / "eval" / f"{cell.task}@v1"
        write_text_atomic(folder / RESULT, record.model_dump_json())
        if cell.key in results.items:
            items = results.items[cell.key]
            samples = [
                {
                    "id": name, "index": 0, "output": "an answer", "scores": {"right": score}, "extracted": {},
                    "outcome": "wrong", "finish_reason": "stop", "generated_tokens": 2, "prompt_truncated": False,
                }
                for name, score in zip(items.ids, items.scores["right"], strict=True)
            ]  # fmt: skip
            write_jsonl_atomic(folder / SAMPLES, samples)
    return root


def claims(**of: dict[str, Any]) -> ClaimsFile:
    """A file of these claims, by id; `_` in an id is `-`."""
    source = {"work": "a table", "says": "one is better"}
    content = {name.replace("_", "-"): {"source": source, **claim} for name, claim in of.items()}
    return ClaimsFile.model_validate({"schema_version": 1, "name": "planted", "claims": content})
