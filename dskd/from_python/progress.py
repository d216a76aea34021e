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
        self._tasks: dict[str, TaskID] = {}
        self._last = time.monotonic()

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

    def prepared(self, done: int, total: int) -> None:
        """So many examples are prepared."""
        self._advance("preparing", done, total)

    def step(self, event: dict[str, Any]) -> None:
        """What `dskd.train` says after a step."""
        loss = event.get("loss")
        said = f", loss {loss:.3f}" if isinstance(loss, float) else ""
        self._advance("training", event["step"], event["steps"], said)

    def _advance(self, what: str, done: int, total: int, said: str = "") -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, description=f"{what}{said}" if said else None)
        moment = time.monotonic()
        due = moment - self._last >= _SECONDS or (done == total and said)
        if due and not self._console.is_terminal:
            self._last = moment
            self._console.print(f"{what}: {done} of {total}{said}", highlight=False, markup=False)
