"""One engine as several processes, each with the whole model and GPUs of its own, that share the blocks of a request.

A block is given to whichever process is free, and a block has the same results everywhere (`harness.engines._blocks`): so completions,
and what is kept of them on the disk, do not depend on the number of processes. Prompts become ids, and ids texts, in this process alone.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from dskd.modeling.folders import require_model_folder
from harness.engines import check, create_engine
from harness.engines._blocks import AnyBlock
from harness.engines._completion_cache import CompletionCache
from harness.engines._devices import THREADS, environments
from harness.engines._part import Part
from harness.engines._part_process import PartRequest
from harness.engines._types import GeneratedTokens, Sampling
from harness.engines.base import Engine

_NOW, _LATER, _END = 1, 2, 0


def open_engine(name: str, model: Path, *, parts: int = 1, tensor_parallel: int = 1, **options: Any) -> Engine:
    """An engine of this process, or several processes where work or model are divided.

    Args:
        parts: Processes that the work is divided among, each with the whole model.
        tensor_parallel: GPUs that share the model, in each of them.
        options: As of `harness.engines.create_engine`.

    Raises:
        InputError: As of `create_engine`, and for too few GPUs.
    """
    if parts == tensor_parallel == 1:
        return create_engine(name, model, **options)
    check(name)
    require_model_folder(model)
    return PartsEngine(name, model, options, parts=parts, tensor_parallel=tensor_parallel)


@dataclass(order=True)
class _Queued:
    """A block that waits for a process. `place`: (whether it is wanted now, its number)."""

    place: tuple[int, int]
    block: AnyBlock | None = field(compare=False, default=None)
    cache: CompletionCache | None = field(compare=False, default=None)
    future: Future[list[Any]] = field(compare=False, default_factory=Future)


class PartsEngine(Engine):
    """An engine whose blocks are completed by several processes.

    Args:
        engine: An engine's name, or "auto".
        options: Of `harness.engines.create_engine`.
        parts: The number of processes.
        tensor_parallel: GPUs of each process, on which its engine spreads the model.

    Attributes:
        peak_memory: Of the process that used most, in bytes.
        peak_device_memory: Of torch in the process that used most, in bytes; None without a GPU.

    Raises:
        InputError: Too few GPUs, or what the engine says itself.
        RuntimeError: A process ended before it was ready.
    """

    preference = -1

    def __init__(
        self, engine: str, model: Path, options: Mapping[str, Any], *, parts: int, tensor_parallel: int = 1
    ) -> None:
        super().__init__(
            model,
            seed=options.get("seed", 0),
            max_batch_size=options.get("max_batch_size"),
            max_length=options.get("max_length"),
        )
        self.peak_memory = 0
        self.peak_device_memory: int | None = None
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._finishes = False  # no new block is begun, and those that were are finished
        self._waiting: queue.PriorityQueue[_Queued] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._early: dict[str, _Queued] = {}
        self._parts: list[Part] = []
        own = environments(parts, tensor_parallel)  # may refuse
        try:
            request = PartRequest(engine, model, dict(options), tensor_parallel)
            for number, environment in enumerate(own, 1):
                self._parts.append(Part(f"part {number} of {parts} of engine {engine}", request, environment))
            starting = {part.connection: part for part in self._parts}
            while starting:
                for connection in wait(list(starting)):
                    starting.pop(connection).get_ready()  # type: ignore[call-overload]
        except BaseException:
            self._end()
            raise
        self._threads_before = torch.get_num_threads()
        # This process waits meanwhile, and its records tell how many threads each of the others has.
        torch.set_num_threads(int(own[0].get(THREADS, self._threads_before)))
        about = self._parts[0].about
        self.name = about.name  # type: ignore[misc]
        self.context, self._about = about.context, about
        self._threads = [
            threading.Thread(target=self._serve, args=(part,), daemon=True, name=part.name) for part in self._parts
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    def unavailable(cls, model: Path) -> str | None:  # noqa: ARG003
        """None: it is made by `create_engine`, and its processes say what is wrong."""
        return None

    @property
    def block_size(self) -> int:
        """That of its engine."""
        return self._about.block_size

    @property
    def scored_length(self) -> int | None:
        """That of its engine."""
        return self._about.scored_length

    @property
    def scores_texts(self) -> bool:
        """Whether its engine does."""
        return self._about.scores_texts

    def close(self) -> None:
        """End the processes: those that wait let go of the model, one that still works is ended."""
        for _ in self._threads:
            self._waiting.put(_Queued((_END, next(self._numbers))))
        if self._finishes:
            for thread in self._threads:
                thread.join()
        self._end()
        for thread in self._threads:
            thread.join()
        for part in self._parts:
            part.release()
        torch.set_num_threads(self._threads_before)

    def begin(self, blocks: Sequence[AnyBlock], cache: CompletionCache | None) -> None:
        """Have blocks completed that will be asked for later, once nothing else is to do, and kept in the cache of theirs."""
        for block in blocks:
            if block.key not in self._early and (cache is None or cache.get(block.key, block.result) is None):
                self._early[block.key] = self._queue(_LATER, block, cache)

    def _in_blocks(self, blocks: Sequence[AnyBlock]) -> Iterator[list[Any]]:
        found: list[list[Any] | Future[list[Any]]] = []
        for block in blocks:
            begun = self._early.pop(block.key, None)
            kept = self._found(block, self.cache) if begun is None else None
            found.append(kept if kept is not None else (begun or self._queue(_NOW, block, self.cache)).future)
        for each in found:
            yield each.result() if isinstance(each, Future) else each

    def _queue(self, when: int, block: AnyBlock, cache: CompletionCache | None) -> _Queued:
        queued = _Queued((when, next(self._numbers)), block, cache)
        self._waiting.put(queued)
        return queued

    def _serve(self, part: Part) -> None:
        """Give one process block after block, until the engine is closed."""
        while (queued := self._waiting.get()).block is not None:
            try:
                if self._error is None and self.before_block is not None:
                    self._ask_whether_to_go_on(self.before_block)
                if self._error is not None:
                    raise self._error
                queued.future.set_result(self._ask(part, queued.block, queued.cache))
            except BaseException as error:
                with self._lock:
                    # The first failure is the reason of those that follow from it.
                    first = self._error is None
                    self._error = self._error or error
                if first:
                    self._end(at_once=True)
                queued.future.set_exception(self._error)

    def _ask_whether_to_go_on(self, before_block: Callable[[], None]) -> None:
        """Let the processes finish their blocks, and no more, where a new one is not to be begun."""
        with self._lock:
            if self._error is None:
                try:
                    before_block()
                except BaseException as error:
                    self._error, self._finishes = error, True

    def _ask(self, part: Part, block: AnyBlock, cache: CompletionCache | None) -> list[Any]:
        for finished in part.ask(block):
            if block.counted:
                with self._lock:
                    self._report(finished)
        with self._lock:
            self.peak_memory = max(self.peak_memory, part.peak_memory)
            if part.peak_device_memory is not None:
                self.peak_device_memory = max(self.peak_device_memory or 0, part.peak_device_memory)
            return self._finished(block, part.results, cache)

    def _end(self, *, at_once: bool = False) -> None:
        for part in self._parts:
            part.tell_to_end(at_once=at_once)
        for part in self._parts:
            part.end()

    def _generate(self, prompts: list[list[int]], sampling: Sampling, seeds: Sequence[int]) -> list[GeneratedTokens]:
        raise AssertionError("its processes generate, block by block")
