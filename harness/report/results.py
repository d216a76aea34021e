"""Records and where they lie, of one run or of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dskd.errors import InputError
from harness.runs.records import Record, read_record
from harness.runs.store import RESULT, result_files


@dataclass(frozen=True)
class Result:
    """A record, the folder that it lies in, and that folder as the page names it: from the run's own name on."""

    record: Record
    folder: Path
    name: str
    root: Path

    @property
    def is_training(self) -> bool:
        """A training that came to its end."""
        return self.record.cell.task is None and self.record.status == "done"


def read_results(roots: Sequence[Path]) -> tuple[list[Result], list[str]]:
    """All results under these folders, one a cell, and in words every record that cannot be read.

    InputError for a folder that is not there, and where none holds a record. What several folders hold of one cell counts once if
    it is the same; where it is not, `make_leaderboard` refuses it.
    """
    results, problems = [], []
    for root in roots:
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; fix: give the folder of a run")
        for path in result_files(root):
            folder = path.parent
            name = f"{root.resolve().name}/{folder.relative_to(root).as_posix()}"
            try:
                results.append(Result(read_record(path), folder, name, run_of(folder, root)))
            except ValueError as error:
                problems.append(str(error).replace(str(path), f"{name}/{RESULT}"))
    if not results and not problems:
        raise InputError(f"{', '.join(map(str, roots))}: no records in there; fix: give the folder of a run")
    return list(
        {(result.record.cell.model_dump_json(), result.record.identity.hash): result for result in results}.values()
    ), problems


def run_of(folder: Path, root: Path) -> Path:
    """The run that a result belongs to: the folder that holds `cells`; `root` where there is none."""
    return next((parent.parent for parent in folder.parents if parent.name == "cells"), root)
