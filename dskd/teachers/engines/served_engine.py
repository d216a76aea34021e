"""What engines behind an address have in common: their servers, the name of the model there, and questions to one address alone."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from torch import Tensor

from dskd.errors import InputError
from dskd.teachers.engines.base import Answers, TeacherEngine
from dskd.teachers.http import model_names
from dskd.teachers.options import ServedOptions
from dskd.teachers.questions import Question
from dskd.teachers.servers import TeacherServers

_T = TypeVar("_T")
_R = TypeVar("_R")


class ServedEngine(TeacherEngine):
    """An engine that asks servers.

    Args:
        served: Where they are, and what they are asked for.

    Attributes:
        servers: The servers, each with its address; `servers.on_reconnect` is called for one that was away.
        model: The name of the model on all of them.

    Raises:
        InputError: For what is no address, a model that is not named where there are several, and what else only the user can change.
        TrainingFailed: Where the model is not named, and no server says within `patience` which one it has.
    """

    def __init__(self, served: ServedOptions) -> None:
        self.kind = served.kind
        self.servers = TeacherServers.of(served)
        self._first: tuple[str, Tensor] | None = None  # the address of the first answer, and what it said of the canary
        self._reading = threading.Lock()  # answers are read on several threads
        try:
            self.model = served.model or self._only_model()
        except BaseException:
            self.servers.close()
            raise

    @abstractmethod
    def ask_at(self, address: str, questions: Sequence[Question]) -> Answers:
        """Ask one address alone, now, and wait. Raises dskd.teachers.http.Away where it has no answer, and what `ask` raises."""

    def figures(self) -> dict[str, Any]:
        """What went over the network (`TeacherServers.figures`)."""
        return self.servers.figures()

    def close(self) -> None:
        self.servers.close()

    def first_answer(self, address: str, canary: Tensor) -> tuple[str, Tensor]:
        """(whose the first answer was, in words; what it said of the canary), by which an answer of this address is judged.

        The canary is a text that begins every request: whatever stands behind an address, no answer of another model is learnt from.
        """
        with self._reading:
            if self._first is None:
                self._first = address, canary.clone()  # and not a part of a whole answer
            place, first = self._first
        return f"answered as {place} did" if place != address else "answered before", first

    def _only_model(self) -> str:
        names = self.servers.get("/v1/models", model_names).result()
        if len(names) != 1:
            raise InputError(
                f"{self.servers.addresses[0]}: has {len(names)} models ({', '.join(map(self.servers.line, names))}); "
                "fix: give one of them as model"
            )
        return names[0]


def in_requests(questions: Sequence[Question], tokens: int, texts: int) -> Iterator[list[Question]]:
    """The questions in their order in parts of at most so many tokens and texts; a longer one is a part of its own."""
    part: list[Question] = []
    size = 0
    for question in questions:
        if part and (size + len(question.ids) > tokens or len(part) == texts):
            yield part
            part, size = [], 0
        part.append(question)
        size += len(question.ids)
    if part:
        yield part


def together(parts: Sequence[Future[_T]], combine: Callable[[list[_T]], _R]) -> Future[_R]:
    """One future for one or more: `combine` of their results, or the first error, with which the others are cancelled."""
    if not parts:  # nothing would ever end it
        raise ValueError("nothing was asked")
    whole: Future[_R] = Future()
    whole.set_running_or_notify_cancel()
    left, lock = len(parts), threading.Lock()

    def done(part: Future[_T]) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = left == 0
            if whole.done():
                return
            error = CancelledError() if part.cancelled() else part.exception()
            try:
                if error is not None:
                    whole.set_exception(error)
                elif last:
                    whole.set_result(combine([each.result() for each in parts]))
            except BaseException as failed:
                whole.set_exception(failed)
        if error is not None:
            for each in parts:
                each.cancel()

    for part in parts:
        part.add_done_callback(done)
    return whole
