"""Scores hostile text in processes of their own, on all cores, with limits for each answer.

What a model wrote is parsed there by large libraries (math-verify, sympy): it may hang them, fill the memory, or end the process.
An answer that does so has its verdict and takes no other one with it. `harness.metrics.scoring_worker` is the other end.
"""

from __future__ import annotations

import json
import os
import pickle
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd.processes import process_environment, python_module
from harness.metrics.sample import HARNESS_ERROR, Advance, SampleScore
from harness.metrics.scoring_worker import HEADER, Setup
from harness.runs.machine import cores

GIB = 2**30
# An answer has so many seconds for one of the processor: other processes may have it, and what only waits ends as well.
_WALL = 20.0
_START_SECONDS = 300.0
_ITEMS_A_WORKER = 16  # fewer do not pay for the start of another


@dataclass(frozen=True)
class Failed:
    """How scoring an item ended without a result: over its limits, refused, with its process, or by an error of the function."""

    outcome: str  # "timeout", "memory", "killed", "refused" or "harness_error"
    detail: str

    def score(self, metrics: Sequence[str]) -> SampleScore:
        """Return the score: 0, for an answer that cannot be scored within the limits is wrong; None after an error of ours."""
        value = None if self.outcome == HARNESS_ERROR else 0.0
        return SampleScore(dict.fromkeys(metrics, value), dict.fromkeys(metrics), self.outcome, self.detail)


def score_in_processes(
    function: Callable[[Any], SampleScore],
    items: Sequence[Any],
    advance: Advance,
    *,
    metrics: Sequence[str],
    seconds: float = 10.0,
    memory: int = GIB,
    prepare: Callable[[], None] | None = None,
) -> list[SampleScore]:
    """Return the scores of many items, in their order, as `run_in_processes`; `Failed.score` says what a failed one is given.

    Args:
        metrics: The names of the metrics, for what is given to those that fail.
    """
    results = run_in_processes(function, items, advance, seconds=seconds, memory=memory, prepare=prepare)
    return [result.score(metrics) if isinstance(result, Failed) else SampleScore(**result) for result in results]


def run_in_processes(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    advance: Advance,
    *,
    seconds: float = 10.0,
    memory: int = GIB,
    prepare: Callable[[], None] | None = None,
    workers: int | None = None,
) -> list[Any]:
    """Return the results of a function for many items, in their order: each as JSON has it, a dataclass as a dict, or `Failed`.

    An interrupt ends all processes, and they end with this one, however it ends. One idle process is kept for the next call, for a
    minute at most.

    Args:
        function: Of a module, importable by its name. What it raises becomes a `Failed` with "harness_error".
        items: Anything that can be pickled.
        advance: Called after each, in this thread.
        seconds: Of the processor, for each item; twenty times as many may pass.
        memory: Bytes that a process may take for an item, beyond what it has once `prepare` is done.
        prepare: Called first in each process, before there are limits: it imports what the function needs.
        workers: How many processes, by default one for each core, and fewer for few items.
    """
    if not items:
        return []
    folders = tuple(dict.fromkeys(_folder(each) for each in (function, prepare) if each is not None))
    setup = Setup(_name(function), prepare and _name(prepare), folders, os.getpid(), seconds, memory)
    count = workers or min(cores(), 1 + len(items) // _ITEMS_A_WORKER)
    pool = _Pool(setup, items)
    threads = [threading.Thread(target=pool.serve, daemon=True, name="scoring") for _ in range(count)]
    results: list[Any] = [None] * len(items)
    try:
        for thread in threads:
            thread.start()
        for _ in items:
            number, result = pool.finished.get()
            if isinstance(result, BaseException):
                raise result
            results[number] = result
            advance()
    except BaseException:
        pool.interrupt()
        raise
    finally:
        for thread in threads:
            thread.join()
    return results


def _name(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__module__, function.__qualname__


def _folder(function: Callable[..., Any]) -> str:
    """The folder that the function's module is imported from, which may be none of those that a new Python knows."""
    file = sys.modules[function.__module__].__file__
    assert file is not None
    return str(Path(file).parents[function.__module__.count(".")])


class _Pool:
    """The items of one call and the processes at work on them, one for each thread that serves."""

    def __init__(self, setup: Setup, items: Sequence[Any]) -> None:
        self.finished: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._setup, self._items = setup, items
        self._numbers = iter(range(len(items)))
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        self._interrupted = False

    def serve(self) -> None:
        """Take item after item, until none is left."""
        worker: _Worker | None = None
        try:
            while (number := self._next()) is not None:
                worker, result = self._ask(worker, pickle.dumps(self._items[number]))
                self.finished.put((number, result))
        except BaseException as error:  # raised in the thread that waits
            self.finished.put((-1, error))
        finally:
            if worker is not None:
                _keep(self._setup, worker)

    def interrupt(self) -> None:
        """Take no more items, and end the processes at work."""
        with self._lock:
            self._interrupted = True
            for worker in self._workers:
                worker.kill()

    def _next(self) -> int | None:
        with self._lock:
            return None if self._interrupted else next(self._numbers, None)

    def _ask(self, worker: _Worker | None, item: bytes) -> tuple[_Worker | None, Any]:
        """Return the result of an item, and the process, None where it ended over it."""
        for again in (True, False):
            worker = worker or self._started()
            result = worker.ask(item, self._setup.seconds)
            if not isinstance(result, Failed) or result.outcome == HARNESS_ERROR:
                return worker, result
            self._ended(worker)
            worker = None
            # What ends a process may be another than the item: what it waited too long for, or the system's lack of memory.
            if result.outcome != "killed" or not again or self._interrupted:
                break
        return None, result

    def _started(self) -> _Worker:
        with self._lock:
            worker = _kept_for(self._setup) or _Worker(self._setup)
            self._workers.add(worker)
            if self._interrupted:
                worker.kill()
        worker.wait_until_ready()
        return worker

    def _ended(self, worker: _Worker) -> None:
        worker.end()
        with self._lock:
            self._workers.discard(worker)


class _Worker:
    """One process: `harness.metrics.scoring_worker`."""

    def __init__(self, setup: Setup) -> None:
        self._process = subprocess.Popen(
            python_module("harness.metrics.scoring_worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=process_environment({"OMP_NUM_THREADS": "1"}),
            start_new_session=True,  # an interrupt of the terminal is for the parent, which ends it
        )
        self._received = bytearray()
        self._ready = False
        self._setup = setup

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        """RuntimeError where the process does not come to be ready."""
        if self._ready:
            return
        if self._exchange(pickle.dumps(self._setup), _START_SECONDS) is None:
            self.end()
            raise RuntimeError(f"a scoring process ended with code {self._process.returncode} before it was ready")
        self._ready = True

    def ask(self, item: bytes, seconds: float) -> Any:
        """Return the result of one pickled item, or how it `Failed`."""
        try:
            answer = self._exchange(item, _WALL * seconds)
        except TimeoutError:
            return Failed("timeout", f"not scored within {_WALL * seconds:g} seconds")
        if answer is None:
            code = self._process.wait()
            if code == -signal.SIGPROF:
                return Failed("timeout", f"not scored within {seconds:g} seconds of the processor")
            return Failed("killed", f"its process ended with code {code}")
        if "refused" in answer:
            return Failed("refused", f"it led to what scoring never does: {answer['refused']}")
        if "memory" in answer:
            return Failed("memory", f"it takes more than {self._setup.memory / GIB:g} GiB of memory")
        return Failed(HARNESS_ERROR, answer["error"]) if "error" in answer else answer["result"]

    def kill(self) -> None:
        """End the process; whoever waits for its answer sees that."""
        self._process.kill()

    def end(self) -> None:
        """End the process and give back what it holds here."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _exchange(self, content: bytes, seconds: float) -> dict[str, Any] | None:
        """Send bytes, and return the answer; None where the process ended. TimeoutError where it does not answer in time."""
        deadline = time.monotonic() + seconds
        unsent = memoryview(len(content).to_bytes(HEADER, "big") + content)
        assert self._process.stdin is not None
        try:
            while unsent:
                unsent = unsent[os.write(self._process.stdin.fileno(), unsent) :]
        except BrokenPipeError:
            return None
        line = self._line(deadline)
        return None if line is None else json.loads(line)

    def _line(self, deadline: float) -> bytes | None:
        assert self._process.stdout is not None
        outgoing = select.poll()
        outgoing.register(self._process.stdout, select.POLLIN)
        while (end := self._received.find(b"\n")) < 0:
            if not outgoing.poll(1000 * max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            if not (part := os.read(self._process.stdout.fileno(), 1 << 20)):
                return None
            self._received += part
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line


# Starting a process takes a second or more, which the next call is spared; one of each kind, until it has been idle for a minute.
_kept: dict[Setup, _Worker] = {}
_kept_lock = threading.Lock()


def _kept_for(setup: Setup) -> _Worker | None:
    with _kept_lock:
        worker = _kept.pop(setup, None)
    if worker is None or worker.is_running:
        return worker
    worker.end()
    return None


def _keep(setup: Setup, worker: _Worker) -> None:
    with _kept_lock:
        before = _kept.pop(setup, None)
        _kept[setup] = worker
    if before is not None:
        before.end()
