"""`run.json`, the promise of a run's folder (which records it is to hold), and the reading of what it does hold."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from harness.config.matrix import cells
from harness.planning.plan import Plan
from harness.runs.store import RESULT, RUN, eval_folder, now, train_folder, write_text_atomic


class RunFile(BaseModel):
    """What was run, and the folders of the records that the whole matrix makes, whatever part of it was asked for."""

    schema_version: int = 1
    matrix: str
    written: str
    records: list[str]


def write_run_file(plan: Plan) -> None:
    """Write `run.json`, unless it says the same already."""
    from harness import tasks

    folders = []
    for cell in cells(plan.matrix):
        if cell.student is not None:
            folders.append(train_folder(cell.folder))
        folders += [
            eval_folder(cell.folder, entry, tasks.load(plan.matrix.task_of(entry)).version, settings.protocol.name)
            for entry, settings in plan.matrix.tasks.items()
        ]
    content = RunFile(matrix=plan.matrix.name, written=now(), records=folders)
    path = plan.root / RUN
    if path.is_file():
        try:
            before = RunFile.model_validate_json(path.read_text(encoding="utf-8"))
        except (ValueError, ValidationError):
            before = None  # damaged: written anew
        if before is not None and content.model_copy(update={"written": before.written}) == before:
            return
    write_text_atomic(path, content.model_dump_json(indent=2) + "\n")


def missing_records(root: Path) -> list[str]:
    """In words, every record that a `run.json` under the folder promises and that is not there."""
    problems = []
    for path in sorted(root.rglob(RUN)):
        try:
            promised = RunFile.model_validate_json(path.read_text(encoding="utf-8")).records
        except ValidationError as error:
            problems.append(f"{path}: {error.errors()[0]['msg']}")
            continue
        except (OSError, ValueError) as error:
            problems.append(f"{path}: {error}")
            continue
        problems += [
            f"{path.parent / folder / RESULT}: is missing"
            for folder in promised
            if not (path.parent / folder / RESULT).is_file()
        ]
    return problems
