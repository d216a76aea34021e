"""Texts as rows for a teacher cache, which all students of that teacher read."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dskd.data.dataset_folder import DatasetFolder
from dskd.data.encoding import assembled_row
from dskd.data.preparation import REPORT
from dskd.data.prepared_part import table_of
from dskd.distances.texts import Reader, Text
from dskd.io import write_atomic


def row_for_teacher(reader: Reader, prompt: str, response: str) -> dict[str, Any] | None:
    """A whole response after a prompt as `measure` asks a teacher about it; None where it is left out."""
    found = reader.read(prompt, Text("", prompt, response))
    return None if isinstance(found, str) else assembled_row(found)


def write_rows(rows: Sequence[dict[str, Any]], reader: Reader, output: Path) -> dict[str, Any]:
    """Write rows as a folder that `build_teacher_cache` reads, and return its report."""
    shutil.rmtree(output, ignore_errors=True)
    content = hashlib.sha256(json.dumps(list(rows)).encode()).hexdigest()
    with DatasetFolder(output) as dataset:
        dataset.write(table_of(rows))
        dataset.finish(content[:16])
    report = {
        "kept": len(rows),
        "content": content,
        "longest_student": max(len(row["student_ids"]) for row in rows),
        "student_vocabulary": reader.vocabulary.fingerprint,
        "teacher_vocabulary": None,
    }
    write_atomic(output / REPORT, json.dumps(report, indent=2) + "\n")
    return report
