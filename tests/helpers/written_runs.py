"""Runs that are written, not trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.results.distances import DISTANCES, DistanceRecord, DistanceValue, TextDistances
from harness.runs.identity import Identity
from harness.runs.records import Cost, Counts, Environment, MetricValue, Record, RecordCell

ENVIRONMENT = Environment(versions={}, python="3.11", platform="Linux", device="cpu", threads=1, engine="transformers")


def write_run(
    folder: Path,
    *,
    methods: Sequence[str] = ("sft", "kd"),
    seeds: Sequence[int] = (1,),
    items: int = 4,
    answer: Callable[[str, int], str] = lambda method, item: f"{method} says {item}",
    score: Callable[[str, int], float] = lambda method, item: 100.0 * ((item + len(method)) % 2),
    task: str = "small_math",
    student: str = "student",
    logged: bool = True,
) -> Path:
    """A run of one pair on one task, with the teacher's own answers."""
    cells = [(None, "teacher", None), *((student, method, seed) for method in methods for seed in seeds)]
    for owner, method, seed in cells:
        samples = [
            {
                "id": str(item),
                "index": 0,
                "prompt": f"Question {item}?",
                "output": answer(method, item),
                "gold": str(item),
                "scores": {"numeric": score(method, item)},
                "extracted": {},
                "outcome": "correct" if score(method, item) else "wrong",
                "finish_reason": "stop",
                "generated_tokens": 3,
                "prompt_truncated": False,
            }
            for item in range(items)
        ]
        where = folder / "cells" / (f"teacher__{owner}/{method}/seed{seed}" if owner else "teacher/teacher")
        mean = sum(sample["scores"]["numeric"] for sample in samples) / items
        cell = RecordCell(teacher="teacher", student=owner, method=method, seed=seed, task=task, task_version="1")
        evaluation = Record(
            cell=cell,
            identity=Identity.of({"model": {"seed": seed}}),
            status="done",
            n=Counts(total=items, scored=items, invalid=0, truncated=0, harness_error=0),
            headline="numeric",
            metrics={"numeric": MetricValue(value=mean, ci95=(max(0, mean - 9), min(100, mean + 9)), n=items)},
            environment=ENVIRONMENT,
        )
        _write(where / "eval" / f"{task}@v1", evaluation)
        lines = "".join(json.dumps(sample) + "\n" for sample in samples)
        (where / "eval" / f"{task}@v1" / "samples.jsonl").write_text(lines)
        if owner is None:
            continue
        training = evaluation.model_copy(
            update={
                "cell": cell.model_copy(update={"task": None, "task_version": None}),
                "n": None,
                "headline": None,
                "metrics": {},
                "cost": Cost(train_seconds=10.0 + len(method), tokens=1000),
            }
        )
        _write(where / "train", training)
        if logged:
            (where / "train" / "model").mkdir()
            log = [{"step": 10 * k, "loss": 2 / k, "cross_entropy": 1 / k, "epoch": 0.1 * k} for k in range(1, 6)]
            text = "".join(json.dumps(line) + "\n" for line in log)
            (where / "train" / "model" / "training_log.jsonl").write_text(text)
    return folder


def _write(folder: Path, record: Record) -> None:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(record.model_dump_json())


def write_distances(folder: Path, method: str, value: float, *, task: str = "small_math") -> None:
    """Beside `write_run`: how far a student is from its teacher on its own answers."""
    values = {
        "kl_teacher_student": DistanceValue(value=value, ci95=(value - 0.05, value + 0.05), n=12, items=4),
        "teacher_entropy": DistanceValue(value=None, reason="not given"),
    }
    about = {"source": "live", "outputs": "hidden_states", "form": "exact", "space": "vocabulary", "space_size": 9}
    record = DistanceRecord(
        cell=RecordCell(teacher="teacher", student="student", method=method, seed=1, task=task, task_version="1"),
        teacher="teacher",
        identity=Identity.of({"method": method}),
        top_k=10,
        texts={"own_answers": TextDistances.model_validate({"values": values, "texts": 4, **about})},
        environment=ENVIRONMENT,
    )
    place = folder / "cells/teacher__student" / method / f"seed1/distances/{task}@v1/{DISTANCES}"
    place.parent.mkdir(parents=True)
    place.write_text(record.model_dump_json())
