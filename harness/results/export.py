"""Exports of a run's records: text files to commit, which hold what a leaderboard needs.

    FOLDER/records.json                          marks the folder as an export
    FOLDER/records/<teacher>__<student>/<method>.jsonl   one record per line: {"record", "items": hash, "scores": {metric: [...]}}
    FOLDER/records/<teacher>/teacher.jsonl
    FOLDER/items/<hash>.json                     items that several records share: {"ids": [...], "prompts": [...]}

The same records give the same bytes: time, machine and paths are not added.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.io import read_objects
from harness.results.item_scores import Items, Results, compact
from harness.runs.records import Record
from harness.runs.store import write_text_atomic

MARKER = "records.json"
_CONTENT = {"kind": "harness-records", "schema_version": 1}


def is_export(root: Path) -> bool:
    """Whether this folder is an export."""
    return (root / MARKER).is_file()


def write_export(results: Results, folder: Path) -> None:
    """Write the records, and remove those of an earlier export. InputError if the folder holds anything but an export."""
    if folder.is_dir() and any(folder.iterdir()) and not is_export(folder):
        raise InputError(f"--export {folder}: is not empty and not an export; fix: name a new folder")
    files: dict[Path, list[str]] = {}
    for record in sorted(results.records, key=_order):
        line = _line(record, results.items.get(record.cell.key), folder, files)
        files.setdefault(folder / "records" / _place(record), []).append(line)
    for old in [*folder.glob("records/*/*.jsonl"), *folder.glob("items/*.json")]:
        if old not in files:
            old.unlink()
    for path, lines in files.items():
        write_text_atomic(path, "".join(f"{line}\n" for line in dict.fromkeys(lines)))
    write_text_atomic(folder / MARKER, _dump(_CONTENT) + "\n")


def joined(earlier: Results, new: Results) -> tuple[Results, list[str]]:
    """Records of two runs of one matrix: all of the new ones, and of the earlier ones those of other cells.

    Returns the records, and a note for each model whose scores on a task were others in the earlier run: one of its seeds was then
    trained, or evaluated, twice with different results.
    """
    replaced = {record.cell.key: record for record in new.records}
    kept = [record for record in earlier.records if record.cell.key not in replaced]
    notes = [
        f"{old.cell.teacher} -> {old.cell.student or 'itself'}, {old.cell.method}, seed {old.cell.seed}, {old.cell.column}: "
        f"{_headline(old)} before, {_headline(now)} now"
        for old, now in ((old, replaced.get(old.cell.key)) for old in earlier.records)
        if now is not None and _headline(old) != _headline(now)
    ]
    items = {record.cell.key: earlier.items[record.cell.key] for record in kept if record.cell.key in earlier.items}
    return Results([*kept, *new.records], {**items, **new.items}, [*earlier.problems, *new.problems]), notes


def _headline(record: Record) -> float | None:
    """The score of an evaluation; None of a training."""
    found = record.metrics.get(record.headline or "")
    return None if found is None else found.value


def read_export(root: Path) -> Results:
    """Read an export. A damaged line becomes a problem; InputError for a damaged `records.json`, or another format."""
    try:
        content = json.loads((root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{root / MARKER}: {error}; fix: export again") from None
    if content != _CONTENT:
        raise InputError(f"{root / MARKER}: unknown format {json.dumps(content)[:80]}; fix: export again")
    records, items, problems = [], {}, []
    for path in sorted(root.glob("records/*/*.jsonl")):
        try:
            for number, row in read_objects(path):
                try:
                    record = Record.model_validate(row.get("record"))
                    if "items" in row:
                        items[record.cell.key] = _items(root, row)
                except (KeyError, TypeError, ValueError) as error:
                    problems.append(f"{path}:{number}: {' '.join(str(error).split())[:200]}; fix: export again")
                    continue
                records.append(record)
        except InputError as error:
            problems.append(str(error))
    return Results(records, items, problems)


def _line(record: Record, items: Items | None, folder: Path, files: dict[Path, list[str]]) -> str:
    line: dict[str, Any] = {"record": record.model_dump(mode="json", exclude_defaults=False)}
    if items is not None:
        shared = _dump({"ids": items.ids, "prompts": items.prompts})
        name = hashlib.sha256(shared.encode()).hexdigest()[:16]
        files[folder / "items" / f"{name}.json"] = [shared]
        scores = {metric: [compact(value) for value in values] for metric, values in items.scores.items()}
        line |= {"items": name, "scores": scores}
    return _dump(line)


def _items(root: Path, row: dict[str, Any]) -> Items:
    name, scores = row["items"], row["scores"]
    if not re.fullmatch(r"[0-9a-f]{16}", str(name)):
        raise ValueError(f"items {name!r} is not a hash")
    path = root / "items" / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"items/{name}.json is missing")
    shared = json.loads(path.read_text(encoding="utf-8"))
    values = {
        metric: tuple(None if value is None else float(value) for value in row_of_scores)
        for metric, row_of_scores in scores.items()
    }
    if any(len(scores_of_items) != len(shared["ids"]) for scores_of_items in values.values()):
        raise ValueError(f"items/{name}.json has another number of ids than there are scores")
    return Items(tuple(shared["ids"]), tuple(shared["prompts"]), values)


def _order(record: Record) -> tuple[Any, ...]:
    cell = record.cell
    names = (cell.teacher, cell.student or "", cell.method, cell.seed or 0, cell.task or "", cell.key)
    return (*names, record.identity.hash)


def _place(record: Record) -> Path:
    cell = record.cell
    pair = cell.teacher if cell.student is None else f"{cell.teacher}__{cell.student}"
    return Path(_name(pair)) / f"{_name(cell.method)}.jsonl"


def _name(text: str) -> str:
    """A safe file name. Two names may become one, because each line holds its record."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip(".") or "_"


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
