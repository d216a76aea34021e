"""Runs as they lie on a disk, of answers that a test gives: scored by the task, with the files that evaluations write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import tasks
from harness.evaluation.summary import summarise
from harness.runs.identity import Identity
from harness.runs.records import Counts, Environment, MetricValue, Record, RecordCell
from harness.runs.store import RESULT, SAMPLES, eval_folder, write_jsonl_atomic, write_text_atomic

ENVIRONMENT = Environment(
    versions={"torch": "2.13.0", "dskd-harness": "0.1.0"},
    python="3.11.7",
    platform="Linux x86_64",
    device="cpu",
    threads=1,
    cpu="a processor",
    engine="transformers",
)


def answers(task_name: str, right: int, items: int) -> dict[str, str]:
    """The first so many items of a task, as many of them right; the wrong ones answer with another item's number."""
    task = tasks.load(task_name)
    docs = task.docs(items)
    other = {doc["id"]: task.reference(docs[(number + 1) % len(docs)]) for number, doc in enumerate(docs)}
    return {
        doc["id"]: task.reference(doc) if number < right else f"{other[doc['id']]}1" for number, doc in enumerate(docs)
    }


def write_evaluation(
    root: Path,
    outputs: Mapping[str, str],
    *,
    task_name: str = "small_math",
    method: str = "kd",
    seed: int = 1,
    environment: Environment = ENVIRONMENT,
    settings: str = "these",
    change: Callable[[list[dict[str, Any]]], Sequence[dict[str, Any]]] = lambda samples: samples,
) -> Path:
    """Write one evaluation of a student; `change` may do what it likes to its samples before they are summed up."""
    task = tasks.load(task_name)
    docs = [doc for doc in task.docs() if doc["id"] in outputs]
    scores = task.score_many(docs, [outputs[doc["id"]] for doc in docs])
    samples = change(
        [
            {"id": doc["id"], "index": 0, "prompt": task.prompt(doc), "output": outputs[doc["id"]], **score.as_dict()}
            for doc, score in zip(docs, scores, strict=True)
        ]
    )
    summary = summarise(task, samples)
    cell = RecordCell(
        teacher="teacher", student="student", method=method, seed=seed, task=task_name, task_version=task.version
    )
    record = Record(
        cell=cell,
        identity=Identity.of({"settings": settings, "seed": seed}),
        status="done",
        n=Counts.model_validate(summary["n"]),
        headline=task.metrics[0].name,
        metrics={name: MetricValue.model_validate(metric) for name, metric in summary["metrics"].items()},
        environment=environment,
    )
    folder = root / eval_folder(f"teacher__student/{method}/seed{seed}", task_name, task.version)
    write_jsonl_atomic(folder / SAMPLES, samples)
    write_text_atomic(folder / RESULT, record.model_dump_json(indent=2))
    return folder
