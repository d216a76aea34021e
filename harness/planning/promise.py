"""Writes `run.json`: the records that the folder of a run is to hold."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from harness import tasks
from harness.config.matrix import Matrix, cells
from harness.results.run_file import RunFile
from harness.runs.store import RUN, eval_folder, now, train_folder, write_text_atomic


def write_run_file(root: Path, matrix: Matrix) -> None:
    """Write `run.json` for the whole matrix, whatever part of it is run, unless it says the same already."""
    folders = []
    for cell in cells(matrix):
        if cell.student is not None:
            folders.append(train_folder(cell.folder))
        folders += [
            eval_folder(cell.folder, entry, tasks.load(matrix.task_of(entry)).version, settings.protocol.name)
            for entry, settings in matrix.tasks.items()
        ]
    content = RunFile(matrix=matrix.name, written=now(), records=folders)
    path = root / RUN
    with suppress(FileNotFoundError, ValueError):  # not there, or damaged: written anew
        before = RunFile.model_validate_json(path.read_text(encoding="utf-8"))
        if content.model_copy(update={"written": before.written}) == before:
            return
    write_text_atomic(path, content.model_dump_json(indent=2) + "\n")
