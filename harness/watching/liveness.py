"""Whether a harness that left its folder still lives, also on another machine, whose clock may differ."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from harness.scheduling.run_process import BEAT_SECONDS, RunProcess, read_run_process, run_folders

_FRESH = 4 * BEAT_SECONDS  # a beat of this age, by the clock of the disk, is one of a living process
_FORGOTTEN = 7 * 24 * 3600.0


def living(root: Path, sleep: Callable[[float], None] = time.sleep) -> list[tuple[Path, RunProcess]]:
    """The harness processes of a run that live, the newest first.

    One of this machine is asked for. Of another machine the beat counts: where its age says nothing, because clocks differ or it is a
    little old, it is looked at twice, with the seconds between two beats in between.
    """
    found, open_questions = [], []
    for folder in run_folders(root):
        process = None if (folder / "closed").exists() else read_run_process(folder)
        if process is None or process.lives is False:
            continue
        age = beat_age(folder)
        if process.lives or (age is not None and 0 <= age < _FRESH):
            found.append((folder, process))
        elif age is not None and abs(age) < _FORGOTTEN:
            open_questions.append((folder, process, _beat(folder)))
    if open_questions:
        sleep(2 * BEAT_SECONDS)
        found += [(folder, process) for folder, process, before in open_questions if _beat(folder) != before]
    return sorted(found, key=lambda each: each[0].name, reverse=True)


def beat_age(folder: Path) -> float | None:
    """Seconds since the beat of a harness process was written, by this machine's clock; None without one."""
    try:
        return time.time() - (folder / "beat").stat().st_mtime
    except OSError:
        return None


def _beat(folder: Path) -> str:
    try:
        return (folder / "beat").read_text(encoding="ascii")
    except OSError:
        return ""
