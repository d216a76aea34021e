"""What the event log says of the harnesses that run a run, or of the last one that did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.scheduling.event_log import EventReader
from harness.scheduling.run_process import RunProcess, read_run_process, run_folders


class History:
    """What the event log says of the living harnesses, or of the last one: how jobs ended, and how long they took."""

    def __init__(self, root: Path, processes: list[RunProcess]) -> None:
        self.last = [] if processes else [*filter(None, map(read_run_process, run_folders(root)[:1]))]
        runs = {process.run for process in processes or self.last}
        self.ended: dict[str, dict[str, Any]] = {}
        self.started: dict[str, dict[str, Any]] = {}  # what was started and has not ended
        self.taken: list[dict[str, Any]] = []
        self.stopping = False
        for event in EventReader(root, without=("progress", "running")).new():
            if event["event"] == "ended" and event.get("status") == "done":
                self.taken.append(event)
            if event.get("run") not in runs:
                continue
            job = str(event.get("job"))
            if event["event"] in {"ended", "again"}:
                self.started.pop(job, None)
            if event["event"] == "ended":
                self.ended[job] = event
            elif event["event"] == "started":
                self.ended.pop(job, None)
                self.started[job] = event
            elif event["event"] == "stopping":
                self.stopping = True
        outputs = {job.id: job.outputs for process in processes or self.last for job in process.jobs}
        self.starting = {
            folder for job, event in self.started.items() if event.get("place") for folder in outputs.get(job, ())
        }
        # Of each folder how its job ended: those that were left out have no manifest to say it.
        self.by_folder = {str(event.get("folder")): event for event in self.ended.values()}
        if not processes:
            self.stopping = False
