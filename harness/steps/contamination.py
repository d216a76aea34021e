"""What the test items of an evaluation share with the training data behind its model, once for each pair in a run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from harness.evaluation.contamination import VERSION, ItemTexts, N, find_contamination, items_of, training_examples
from harness.runs.identity import FileHashes, Identity
from harness.runs.job_context import JobContext
from harness.runs.job_spec import OutputSpec
from harness.runs.records import DataOverlap
from harness.runs.store import write_json_atomic

_KINDS = ("exact", "exact_with_answer", "ngram")


def overlaps(job: JobContext, outputs: Mapping[str, OutputSpec]) -> dict[str, list[DataOverlap] | None]:
    """For each output, by its name in the job's `tasks`, an entry for each source in the job's `training_data`.

    It says something about scores and changes none, so a training file that cannot be read leaves a reason and no error. None where
    the job was planned without that list.
    """
    from harness import tasks

    sources = job.arguments.get("training_data")
    if sources is None:
        return dict.fromkeys(outputs)
    items: dict[str, list[ItemTexts]] = {}
    for name, output in outputs.items():
        assert output.cell is not None
        task = tasks.load(str(output.cell.task))
        items[name] = items_of(task, task.docs(job.arguments["tasks"][name]["limit"]))
    found: dict[str, list[DataOverlap] | None] = {}
    job.progress.advance("comparing test items with training data", 0, None)
    entries = [_entries(job, source, items) for source in sources]
    for name in outputs:
        found[name] = [of_source[name] for of_source in entries]
    return found


def _entries(
    job: JobContext, source: Mapping[str, Any], items: Mapping[str, list[ItemTexts]]
) -> dict[str, DataOverlap]:
    what: dict[str, Any] = {"of": source["of"], "data": source["data"]}
    if source["path"] is None:
        return {name: DataOverlap(**what, reason=source["reason"]) for name in items}
    try:
        counts = _counts(job, source, items)
    except InputError as error:
        print(f"not compared with test items: {error}", flush=True)
        reason = "its file could not be read when this was evaluated"
        return {name: DataOverlap(**what, reason=reason) for name in items}
    return {name: DataOverlap.model_validate({**what, **own}) for name, own in counts.items()}


def _counts(
    job: JobContext, source: Mapping[str, Any], items: Mapping[str, list[ItemTexts]]
) -> dict[str, dict[str, int]]:
    """What `find_contamination` finds, in numbers; from the run's folder where another evaluation has left it."""
    path = Path(source["path"])
    data = {"sha256": FileHashes().file(path), "columns": source["columns"], "limit": source["limit"]}
    kept = {}
    for name, own in items.items():
        parts = {"version": VERSION, "n": N, "data": data, "items": [asdict(item) for item in own]}
        kept[name] = job.store.root / ".harness" / "overlap" / f"{Identity.of(parts).short}.json"
    missing = {name: own for name, own in items.items() if not kept[name].is_file()}
    if missing:
        for name, each in find_contamination(
            missing, training_examples(path, source["columns"], source["limit"])
        ).items():
            counted = {key: getattr(each, key) for key in ("items", "examples", "n", "short")}
            write_json_atomic(kept[name], counted | {kind: len(getattr(each, kind)) for kind in _KINDS})
    return {name: json.loads(kept[name].read_text(encoding="utf-8")) for name in items}
