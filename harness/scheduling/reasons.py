"""Why a job's process ended badly, in one line, from what it left."""

from __future__ import annotations

from pathlib import Path

from harness.planning.plan import PlannedJob
from harness.runs.failures import reason_of_exit
from harness.runs.store import LOG, Store


def failure_reason(job: PlannedJob, code: int, said: str = "") -> str:
    """Why a job failed.

    Args:
        job: The job.
        code: Its exit code; negative: the number of the signal that ended it.
        said: The reason that it gave itself, if it could.
    """
    if said:
        return said
    store = Store(job.root)
    for output in job.wanted:
        state, manifest = store.output(output.folder).state()
        if state == "failed" and manifest is not None and manifest.error and code > 0:
            return manifest.error
    last = last_lines(job.folder / LOG, 1)
    return reason_of_exit(code) + (f"; last line of its log: {last[0].strip()}" if last else "")


def last_lines(log: Path, number: int) -> list[str]:
    """The last lines of a log that are not empty; none where there is no log."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-number:]
