"""Records with their folders, of one run or of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dskd.errors import InputError
from harness.results.load import read_records
from harness.runs.records import Record
from harness.runs.store import RESULT


@dataclass(frozen=True)
class Result:
    """A record with its folder and that of its run."""

    record: Record
    folder: Path
    name: str  # of the folder, as the page shows it: a path that starts with the name of the run
    root: Path  # the run that it belongs to: the folder that holds `cells`, or that which was given

    @property
    def is_training(self) -> bool:
        """Whether this is a training that finished."""
        return self.record.cell.task is None and self.record.status == "done"

    @property
    def is_evaluation(self) -> bool:
        """Whether this is an evaluation that finished."""
        return self.record.cell.task is not None and self.record.status == "done"


def read_results(roots: Sequence[Path]) -> tuple[list[Result], list[str]]:
    """All results under these folders, and a message for each record that cannot be read.

    A record that several folders hold counts once. `make_leaderboard` refuses two different ones of the same cell. InputError without
    any record, or for a folder that does not exist.
    """
    results, problems = {}, []
    for root in roots:
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; fix: give the folder of a run")
        records, unreadable = read_records(root)
        for path, record in records.items():
            run = next((parent.parent for parent in path.parent.parents if parent.name == "cells"), root)
            result = Result(record, path.parent, _name(path.parent, root), run)
            results[record.cell.key, record.identity.hash] = result
        for path, message in unreadable.items():
            problems.append(message.replace(str(path), f"{_name(path.parent, root)}/{RESULT}"))
    if not results and not problems:
        raise InputError(f"{', '.join(map(str, roots))}: no records in there; fix: give the folder of a run")
    return list(results.values()), problems


def _name(folder: Path, root: Path) -> str:
    return f"{root.resolve().name}/{folder.relative_to(root).as_posix()}"
