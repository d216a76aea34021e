"""Requests to the servers of a teacher: persistent connections, several addresses, and what happens when one is away.

A request goes to the address with the fewest open ones; more than `in_flight` at an address wait in their order. An address that
cannot be reached, fails or gives half an answer is set aside, and its requests move to the others. It is asked for its /health with
growing pauses, and used again once that and `on_reconnect` succeed. While all are away requests wait, at most `patience` seconds.

All of it runs on one thread with an event loop of its own, so that closing ends what is under way at once. Answers are read on a few
others: a large one holds up no connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import json
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from dskd.errors import InputError, PartnerLost
from dskd.teachers.addresses import ApiKey, checked_addresses
from dskd.teachers.http import Away, Connections, Reply
from dskd.teachers.options import ServedOptions

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_PAUSES = 0.25, 30.0  # seconds, the first and the longest
_READERS = 2  # threads; what they do is mostly copying


class _Place:
    """An address, and how it is."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.open = self.asked = self.losses = 0
        self.away = False
        self.last = ""  # what happened last
        self.pause = _PAUSES[0]


class TeacherServers:
    """The servers at the addresses of a teacher. Its methods may be called from any thread.

    Args:
        addresses: Of replicas of one model.
        api_key_env: The environment variable of their API key.
        timeout: Seconds for one request.
        patience: Seconds to wait while all are away.
        in_flight: Requests at a time at each address.

    Attributes:
        on_reconnect: Called with an address that was away, in a thread of its own, before it is used again. What it raises ends all
            requests; but Away, with which the address stays away. It asks with `ask`.

    Raises:
        InputError: For what is no address, no API key and no usable proxy.
    """

    def __init__(
        self, addresses: tuple[str, ...], *, api_key_env: str, timeout: float, patience: float, in_flight: int
    ) -> None:
        self.addresses = checked_addresses(addresses)
        self.on_reconnect: Callable[[str], None] | None = None
        self._key = ApiKey.from_environment(api_key_env)
        self._connections = Connections(self._key, timeout)
        self._patience, self._in_flight = patience, in_flight
        self._places = {address: _Place(address) for address in self.addresses}
        self._numbers = itertools.count()
        self._waiting: list[tuple[int, asyncio.Future[_Place]]] = []  # a heap, by the number of the request
        self._failure: Exception | None = None  # why no request will be answered any more
        self._outage: float | None = None  # since when all were away, until one answers again
        self._watch: asyncio.TimerHandle | None = None  # ends what waits for all of them
        self._waited = 0.0
        self._counts = {"requests": 0, "retries": 0}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing, self._closed = threading.Lock(), False
        self._ending: Future[None] | None = None
        # What is taken before `_closed` is dropped by `_end`, and nothing is taken after it, which no loop would ever run.
        self._taking = threading.Lock()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="dskd-teacher-answers")
        self._loop = asyncio.new_event_loop()
        # Nothing joins a daemon at the end of the process, where an answer may be minutes away.
        self._thread = threading.Thread(target=self._loop.run_forever, name="dskd-teacher-servers", daemon=True)
        self._thread.start()

    @classmethod
    def of(cls, served: ServedOptions) -> TeacherServers:
        """The servers of these options."""
        return cls(
            served.addresses,
            api_key_env=served.api_key_env,
            timeout=served.timeout,
            patience=served.patience,
            in_flight=served.in_flight,
        )

    def post(self, path: str, body: Mapping[str, Any], read: Callable[[Reply], _T]) -> Future[_T]:
        """Send JSON to one of the addresses and read its answer.

        Args:
            path: Such as /v1/completions.
            body: What is sent.
            read: Makes the result of an answer, on one of several threads. Where it raises Away, because the answer is half of one, the
                request is sent again; other errors are the request's.

        Returns:
            The result. It raises TrainingFailed where all addresses were away for too long, InputError for what the user has to change.
        """
        content = json.dumps(body, separators=(",", ":")).encode()
        return self._run(self._answer(next(self._numbers), "POST", path, content, read))

    def get(self, path: str, read: Callable[[Reply], _T]) -> Future[_T]:
        """As `post`, without a body: a small question, which is answered within seconds."""
        return self._run(self._answer(next(self._numbers), "GET", path, None, read))

    def ask(self, address: str, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        """Send a request, a POST where there is a body, to this address now and wait for its answer.

        Raises:
            Away: Where it has none; the address is set aside then.
            InputError: For what the user has to change.
        """
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        return self._run(self._ask(self._places[address], path, content)).result()

    @property
    def reachable(self) -> tuple[str, ...]:
        """The addresses that are not away, as far as is known."""
        return tuple(place.address for place in self._places.values() if not place.away)

    def figures(self) -> dict[str, Any]:
        """Requests that were answered, retries, bytes sent and received with their headers, and seconds in which all were away."""
        sent, received = self._connections.bytes_sent, self._connections.bytes_received
        return {**self._counts, "bytes_sent": sent, "bytes_received": received, "away_seconds": self._waited}

    def line(self, said: Any) -> str:
        """What a server said, in one line without the API key."""
        return self._key.line(said)

    def close(self) -> None:
        """Drop what is under way and close the connections."""
        with self._closing:
            if self._loop.is_closed():
                return
            with self._taking:
                self._closed = True
            if self._ending is None:  # it may have been interrupted here
                self._ending = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
            self._ending.result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._readers.shutdown()
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        with self._taking:
            if not self._closed:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise RuntimeError("these servers are closed")

    # From here on everything runs on the thread of the loop.

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._connections.close()

    async def _answer(
        self, number: int, method: str, path: str, content: bytes | None, read: Callable[[Reply], _T]
    ) -> _T:
        failures, first_failure = 0, 0.0
        while True:
            place = await self._free_place(number)
            losses = place.losses
            try:
                reply = await self._connections.send(place.address, method, path, content, quick=content is None)
                if place.losses == losses:  # otherwise a server answered that may not be there any more
                    result = await self._loop.run_in_executor(self._readers, read, reply)
                    self._answered(place)
                    return result
            except Away as error:
                if place.losses == losses:
                    self._set_aside(place, error)
                failures, first_failure = failures + 1, first_failure or self._loop.time()
                tried = self._loop.time() - first_failure
                if failures > len(self.addresses) and tried > self._patience:
                    raise self._gave_up(tried, f"{place.address}: {error}") from None
            finally:
                place.open -= 1
                self._hand_out()
            self._counts["retries"] += 1

    async def _free_place(self, number: int) -> _Place:
        """An address for a request, in the order of their numbers; it counts as open there."""
        turn: asyncio.Future[_Place] = self._loop.create_future()
        heapq.heappush(self._waiting, (number, turn))
        self._hand_out()
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.exception() is None:  # just before, it was given a place
                turn.result().open -= 1
            self._hand_out()
            raise

    def _hand_out(self) -> None:
        """Give the requests that wait what is free for them."""
        while self._waiting:
            _, turn = self._waiting[0]
            here = [place for place in self._places.values() if not place.away]
            free = [place for place in here if place.open < self._in_flight]
            if turn.cancelled():
                pass
            elif self._failure is not None:
                turn.set_exception(self._failure)
            elif free:
                place = min(free, key=lambda place: (place.open, place.asked))
                place.open, place.asked = place.open + 1, place.asked + 1
                turn.set_result(place)
            else:
                if not here:
                    self._all_away()
                return
            heapq.heappop(self._waiting)

    def _all_away(self) -> None:
        """Say so once, and see to it that nothing waits for ever."""
        if self._watch is None:
            now = self._loop.time()
            self._outage = now if self._outage is None else self._outage
            left = max(self._outage + self._patience - now, 0.0)
            if left:
                log.warning("%s; the training waits up to %.0f s", self._last(), left)
            self._watch = self._loop.call_later(left, self._give_up)

    def _give_up(self) -> None:
        """End what waits, if all are still away."""
        self._watch = None
        if self._outage is None or self.reachable:
            return
        for _, turn in self._waiting:
            if not turn.done():
                turn.set_exception(self._gave_up(self._loop.time() - self._outage))
        self._waiting.clear()

    def _gave_up(self, seconds: float, said: str = "") -> PartnerLost:
        if not self._patience:
            return PartnerLost(f"{self._last() or said}; fix: start the server, or give the address of one that runs")
        return PartnerLost(
            f"{self._last() or said}, no answer for {seconds:.0f} s; fix: start the server again; the last checkpoint stays, and the same "
            "command goes on from it"
        )

    def _last(self) -> str:
        """What happened last at each address."""
        return "; ".join(f"{place.address}: {place.last}" for place in self._places.values() if place.last)

    def _set_aside(self, place: _Place, error: Away) -> None:
        place.last = str(error)
        place.losses += error.lost
        if place.away:
            return
        place.away = True
        if self.reachable:
            log.warning("%s: %s; its requests go to %s", place.address, place.last, ", ".join(self.reachable))
        task = self._loop.create_task(self._bring_back(place))
        self._tasks.add(task)  # the loop itself keeps no reference
        task.add_done_callback(self._tasks.discard)

    async def _bring_back(self, place: _Place) -> None:
        """Wait until an address is there again."""
        while place.away:
            await asyncio.sleep(place.pause)
            place.pause = min(2 * place.pause, _PAUSES[1])
            try:
                await self._find_healthy(place.address)
                if self.on_reconnect is not None:
                    await asyncio.to_thread(self.on_reconnect, place.address)
            except Away as error:
                place.last = str(error)
            except Exception as error:  # not the teacher that it was: every request raises it
                self._failure = error
                break
            else:
                place.away = False
        self._hand_out()

    async def _find_healthy(self, address: str) -> None:
        # InputError: a server without /health; what else it has against a request, the next one tells.
        with contextlib.suppress(InputError):
            await self._connections.send(address, "GET", "/health", None, quick=True)

    def _answered(self, place: _Place) -> None:
        """A request has its answer."""
        self._counts["requests"] += 1
        place.pause = _PAUSES[0]
        if not place.away:  # a late answer of one that was set aside does not explain why it was
            place.last = ""
        if self._outage is None:
            return
        seconds = self._loop.time() - self._outage
        self._waited += seconds
        self._outage = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
            log.warning("%s: answers again after %.0f s; the training goes on", place.address, seconds)

    async def _ask(self, place: _Place, path: str, content: bytes | None) -> Reply:
        losses = place.losses
        try:
            method, quick = ("GET", True) if content is None else ("POST", False)
            reply = await self._connections.send(place.address, method, path, content, quick=quick)
        except Away as error:
            if place.losses == losses:
                self._set_aside(place, error)
            raise
        self._counts["requests"] += 1
        return reply
