"""Shows how far a call is: a bar on a terminal, in a log a line now and then. On standard error."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_SECONDS = 30.0  # between two lines of a log


class Shown:
    """The stages of a call and the steps of its training."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._training: TaskID | None = None
        self._last = 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def stage(self, what: str) -> None:
        """A stage begins."""
        self._console.print(what, highlight=False, markup=False)

    def step(self, event: dict[str, Any]) -> None:
        """What `dskd.train` says after a step."""
        if self._training is None:
            self._training = self._bars.add_task("training", total=event["steps"])
        loss = event.get("loss")
        described = f"training, loss {loss:.3f}" if isinstance(loss, float) else None
        self._bars.update(self._training, completed=event["step"], description=described)
        moment, done = time.monotonic(), event["step"] == event["steps"]
        if described and not self._console.is_terminal and (done or moment - self._last >= _SECONDS):
            self._last = moment
            line = f"step {event['step']} of {event['steps']}: loss {loss:.3f}"
            self._console.print(line, highlight=False, markup=False)
