"""`run.json`, the promise of a run's folder: which records it is to hold, and which of them are missing."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from harness.runs.store import RESULT, RUN


class RunFile(BaseModel):
    """What was run, and the folders of the records that the whole matrix makes, whatever part of it was asked for."""

    schema_version: int = 1
    matrix: str
    written: str
    records: list[str]


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
