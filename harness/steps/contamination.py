"""What the test items of an evaluation share with the training data behind its model, counted once for each pair in a run's folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dskd.data.options import DEFAULT
from dskd.data.reading import source_digest
from dskd.errors import InputError
from harness import tasks
from harness.evaluation.contamination import VERSION, ItemTexts, N, find_contamination, items_of, training_examples
from harness.runs.identity import FileHashes, Identity
from harness.runs.job_context import JobContext
from harness.runs.records import DataOverlap
from harness.runs.store import write_json_atomic
from harness.steps.base import TrainingSource

log = logging.getLogger(__name__)
_KINDS = ("exact", "exact_with_answer", "ngram")


def count_contamination(
    job: JobContext, sources: Sequence[tuple[str, TrainingSource]], evaluated: Mapping[str, tuple[str, int | None]]
) -> dict[str, list[DataOverlap]]:
    """For each task, an entry for each training set, each set once for student and teacher. evaluated: (task, limit) by name.

    It says something about scores and changes none, so a training file that cannot be read leaves a reason and no error.
    """
    items: dict[str, list[ItemTexts]] = {}
    for name, (task_name, limit) in evaluated.items():
        task = tasks.load(task_name)
        items[name] = items_of(task, task.docs(limit))
    job.progress.advance("comparing test items with training data", 0, None)
    distinct = {
        (of, source.data, source.limit, source.reason, str(_path(job, source))): source for of, source in sources
    }
    entries = [_entries(job, key[0], source, items) for key, source in distinct.items()]
    return {name: [entry[name] for entry in entries] for name in evaluated}


def warn_of_trained_items(
    root: Path, sources: Sequence[tuple[str, TrainingSource]], names: Sequence[str], told: set[str]
) -> None:
    """Warn where settings would be chosen by questions that the student is trained on. Sets that are not made yet are passed over.

    Args:
        root: Of the run.
        sources: The training sets behind a model.
        names: Of the validation tasks.
        told: What was looked at before; it is added to.
    """
    for of, source in sources:
        path = None if source.examples is None else source.examples.path(root)
        if of != "student" or path is None or not Path(path).exists():
            continue
        for name in names:
            key = f"{name} {source.limit} {path}"
            if key in told:
                continue
            told.add(key)
            task = tasks.load(name)
            options = getattr(source.examples, "options", DEFAULT)
            items = {name: items_of(task, task.docs())}
            try:
                found = find_contamination(items, training_examples(path, options, source.limit))[name]
            except InputError:
                continue  # which the preparation of the set is going to say
            if found.exact:
                log.warning(
                    "%d of the %d items of %s are in the training set %s: what was learnt by heart would be chosen by; "
                    "leave these rows out of training (limit: N reads the first N), or choose by others with tuning.tasks",
                    len(found.exact),
                    found.items,
                    name,
                    source.data,
                )


def _path(job: JobContext, source: TrainingSource) -> Any:
    return None if source.examples is None else source.examples.path(job.root)


def _entries(
    job: JobContext, of: str, source: TrainingSource, items: Mapping[str, list[ItemTexts]]
) -> dict[str, DataOverlap]:
    what: dict[str, Any] = {"of": of, "data": source.data}
    if source.examples is None:
        return {name: DataOverlap(**what, reason=source.reason) for name in items}
    try:
        counts = _counts(job, source, items)
    except InputError as error:
        print(f"not compared with test items: {error}", flush=True)
        reason = "its file could not be read when this was evaluated"
        return {name: DataOverlap(**what, reason=reason) for name in items}
    return {name: DataOverlap.model_validate({**what, **own}) for name, own in counts.items()}


def _counts(job: JobContext, source: TrainingSource, items: Mapping[str, list[ItemTexts]]) -> dict[str, dict[str, int]]:
    """The counts of `find_contamination`; from the run's folder where another evaluation has left them."""
    path, options = _path(job, source), getattr(source.examples, "options", DEFAULT)
    digest = source_digest(path, FileHashes().file)
    data = {"sha256": digest, "options": options.model_dump(), "limit": source.limit}
    stored = {}
    for name, own in items.items():
        parts = {"version": VERSION, "n": N, "data": data, "items": [asdict(item) for item in own]}
        stored[name] = job.root / ".harness" / "overlap" / f"{Identity.of(parts).short}.json"
    missing = {name: own for name, own in items.items() if not stored[name].is_file()}
    if missing:
        for name, each in find_contamination(missing, training_examples(path, options, source.limit)).items():
            counted = {key: getattr(each, key) for key in ("items", "examples", "n", "short")}
            write_json_atomic(stored[name], counted | {kind: len(getattr(each, kind)) for kind in _KINDS})
    return {name: json.loads(stored[name].read_text(encoding="utf-8")) for name in items}
