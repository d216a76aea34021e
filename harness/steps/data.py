"""Prepares data: writes the small world, or tokenises a training set for a student and, with one, its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.io import read_objects
from harness.config.matrix import template_columns
from harness.runs.job_context import JobContext
from harness.runs.store import write_jsonl_atomic


def run(job: JobContext) -> None:
    """Make the one output of a `world` or a `data` job."""
    (output,) = job.spec.outputs
    report = _world(job) if job.spec.kind == "world" else _data(job)
    job.finish(output, report=report)


def _world(job: JobContext) -> dict[str, Any]:
    from harness.smallworld.world import write_world

    write_world(job.folder / "world", job.arguments["seed"])
    return {}


def _data(job: JobContext) -> dict[str, Any]:
    from dskd.data.preparation import prepare_dataset

    arguments = job.arguments
    examples = Path(arguments["examples"])
    if arguments["columns"] is not None:
        rows = apply_templates(examples, arguments["columns"])
        examples = job.folder / "examples.jsonl"
        write_jsonl_atomic(examples, rows[: arguments["limit"]])
    report = prepare_dataset(
        examples,
        job.folder / "dataset",
        student=Path(arguments["student"]),
        teacher=Path(arguments["teacher"]) if arguments["teacher"] else None,
        max_length=arguments["max_length"],
        limit=arguments["limit"],
    )
    print(report.model_dump_json(indent=2))
    return report.model_dump()


def apply_templates(path: Path, made_of: Mapping[str, str]) -> list[dict[str, str]]:
    """The rows of a JSON-lines file as examples, each key made of columns as `made_of` says.

    InputError with file and line for what is no row, or lacks a column of the templates or text or a number in it.
    """
    columns = dict.fromkeys(column for text in made_of.values() for column in template_columns(text))
    rows = []
    for number, row in read_objects(path):
        for column in columns:
            if column not in row:
                raise InputError(
                    f"{path}:{number}: has no column '{column}', which the template names; columns: {', '.join(row)}"
                )
            if isinstance(row[column], bool) or not isinstance(row[column], (str, int, float)):
                raise InputError(
                    f"{path}:{number}: column '{column}', which the template names, is neither text nor a number; "
                    "give it one, or leave the line out"
                )
        rows.append({key: text.format_map(row) for key, text in made_of.items()})
    return rows
