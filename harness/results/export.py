"""Records in a form that is committed: what a leaderboard needs of a run, in text files that git compares line by line.

    FOLDER/records.json                          what this folder is
    FOLDER/records/<teacher>__<student>/<method>.jsonl   a line a record: {"record", "items": hash, "scores": {metric: [...]}}
    FOLDER/records/<teacher>/teacher.jsonl
    FOLDER/items/<hash>.json                     the items that many records share: {"ids": [...], "prompts": [...]}

The same records give the same bytes; nothing of the time, the machine or the path is added to what they hold.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.io import read_objects
from harness.results.item_scores import Items
from harness.results.load import Results, key_of
from harness.runs.records import Record
from harness.runs.store import write_text_atomic

MARKER = "records.json"
_CONTENT = {"kind": "harness-records", "schema_version": 1}


def is_committed(root: Path) -> bool:
    """Whether this is a folder of committed records."""
    return (root / MARKER).is_file()


def write_committed(results: Results, folder: Path) -> None:
    """Write the records, and remove those of an earlier export. InputError for a folder that holds anything else."""
    if folder.is_dir() and any(folder.iterdir()) and not is_committed(folder):
        raise InputError(f"--export {folder}: is not empty and holds no exported records; fix: name a new folder")
    files: dict[Path, list[str]] = {}
    for record in sorted(results.records, key=_order):
        files.setdefault(folder / "records" / _place(record), []).append(
            _line(record, results.items.get(key_of(record)), folder, files)
        )
    for old in [*folder.glob("records/*/*.jsonl"), *folder.glob("items/*.json")]:
        if old not in files:
            old.unlink()
    for path, lines in files.items():
        write_text_atomic(path, "".join(f"{line}\n" for line in dict.fromkeys(lines)))
    write_text_atomic(folder / MARKER, _dump(_CONTENT) + "\n")


def read_committed(root: Path) -> Results:
    """Read what `write_committed` wrote; a line that is broken is a problem in words."""
    try:
        content = json.loads((root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{root / MARKER}: {error}; fix: export again") from None
    if content != _CONTENT:
        raise InputError(f"{root / MARKER}: is {json.dumps(content)[:80]}; fix: export again with this version")
    records, items, problems = [], {}, []
    for path in sorted(root.glob("records/*/*.jsonl")):
        try:
            for number, row in read_objects(path):
                try:
                    record = Record.model_validate(row.get("record"))
                    if "items" in row:
                        items[key_of(record)] = _items(root, row)
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
        line |= {
            "items": name,
            "scores": {metric: [_short(value) for value in values] for metric, values in items.scores.items()},
        }
    return _dump(line)


def _items(root: Path, row: dict[str, Any]) -> Items:
    name, scores = row["items"], row["scores"]
    if not re.fullmatch(r"[0-9a-f]{16}", str(name)):
        raise ValueError(f"items {name!r} is no hash")
    path = root / "items" / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"items/{name}.json is missing")
    shared = json.loads(path.read_text(encoding="utf-8"))
    values = {
        metric: tuple(None if value is None else float(value) for value in found) for metric, found in scores.items()
    }
    if any(len(found) != len(shared["ids"]) for found in values.values()):
        raise ValueError(f"not as many scores as items/{name}.json has ids")
    return Items(tuple(shared["ids"]), tuple(shared["prompts"]), values)


def _order(record: Record) -> tuple[Any, ...]:
    cell = record.cell
    return (
        cell.teacher,
        cell.student or "",
        cell.method,
        cell.seed or 0,
        cell.task or "",
        key_of(record),
        record.identity.hash,
    )


def _place(record: Record) -> Path:
    cell = record.cell
    pair = cell.teacher if cell.student is None else f"{cell.teacher}__{cell.student}"
    return Path(_name(pair)) / f"{_name(cell.method)}.jsonl"


def _name(text: str) -> str:
    """As a name of a file; lines say themselves what they are about, so two names may become one."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip(".") or "_"


def _short(value: float | None) -> float | int | None:
    """Whole numbers without their ".0"."""
    return int(value) if value is not None and value == int(value) else value


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
