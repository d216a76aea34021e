"""`run.json`: which records a run's folder will hold, and which of them are missing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from harness.runs.store import RESULT, RUN


class RunFile(BaseModel):
    """The matrix that was run, and the record folders of the whole matrix, even if only a part was run."""

    schema_version: int = 1
    matrix: str
    written: str
    records: list[str]


def run_matrices(root: Path) -> list[str]:
    """The names of the matrices that were run under a folder, as far as its `run.json` can be read."""
    names = []
    for path in _run_files(root):
        with suppress(OSError, ValueError):
            names.append(RunFile.model_validate_json(path.read_text(encoding="utf-8")).matrix)
    return list(dict.fromkeys(names))


def _run_files(root: Path) -> list[Path]:
    """Those of runs; a harness process has one of the same name, which is something else."""
    return [path for path in sorted(root.rglob(RUN)) if ".harness" not in path.relative_to(root).parts]


def missing_records(root: Path) -> list[str]:
    """A message for each record that a `run.json` under the folder lists and that does not exist."""
    problems = []
    for path in _run_files(root):
        try:
            folders = RunFile.model_validate_json(path.read_text(encoding="utf-8")).records
        except (OSError, ValueError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            problems.append(f"{path}: {reason}; fix: run the matrix again")
            continue
        results = [path.parent / folder / RESULT for folder in folders]
        problems += [f"{result}: is missing" for result in results if not result.is_file()]
    return problems
