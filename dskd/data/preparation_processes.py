"""Makes the parts of a prepared dataset in several processes, which are given one block after the other."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from dskd.data.blocks import Block
from dskd.data.prepared_part import Recipe, make_part
from dskd.errors import PartnerLost
from dskd.processes import process_environment, python_module

# A process takes two seconds to start and 150 MB; this many bytes take one process about four.
BYTES_A_WORKER = 4 * 2**20
# Parts that are made before their turn; so much text waits on the disk.
AHEAD = 4


def workers_for(blocks: Sequence[Block]) -> int:
    """How many processes these blocks are worth, at most one for each core that this process may use; 1: this process alone."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, sum(block.length for block in blocks) // BYTES_A_WORKER))


def make_parts(recipe: Recipe, blocks: Sequence[Block], folder: Path, workers: int) -> Generator[Block, None, None]:
    """Make the part of each block in a folder, and yield each block when its part is there, in their order.

    Raises what making a part raises, for the first block in their order. TrainingFailed where a process ended by itself.
    """
    if min(workers, len(blocks)) == 1:
        for block in blocks:
            make_part(recipe, block, folder)
            yield block
        return
    # Not by `multiprocessing`: its processes import the main module again, which may be a script without a guard, or none.
    with _Workers(recipe, folder, min(workers, len(blocks))) as pool:
        yield from pool.in_order(blocks)


class _Workers:
    """Processes, and for each a thread that waits for it."""

    def __init__(self, recipe: Recipe, folder: Path, count: int) -> None:
        file = folder / "recipe.pickle"
        file.write_bytes(pickle.dumps(recipe))
        self._count = count
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._threads = ThreadPoolExecutor(count)
        with contextlib.ExitStack() as started:
            for _ in range(count):
                self._workers.append(_Worker(folder, file))
                started.callback(self._workers[-1].end)
                self._idle.put(self._workers[-1])
            started.pop_all()

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()  # at which its thread goes on
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.connection.close()

    def in_order(self, blocks: Sequence[Block]) -> Iterator[Block]:
        rest = iter(blocks)
        running: deque[tuple[Block, Future[None]]] = deque()
        while True:
            while len(running) < self._count + AHEAD and (block := next(rest, None)) is not None:
                running.append((block, self._threads.submit(self._make, block)))
            if not running:
                return
            block, future = running.popleft()
            future.result()
            yield block

    def _make(self, block: Block) -> None:
        worker = self._idle.get()
        try:
            worker.make(block)
        finally:
            self._idle.put(worker)


class _Worker:
    """A process that makes one part at a time."""

    def __init__(self, folder: Path, recipe_file: Path) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                python_module("dskd.data.preparation_worker", str(theirs.fileno()), str(folder), str(recipe_file)),
                pass_fds=(theirs.fileno(),),
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=2,  # standard output is for data
            )
        self.connection = Connection(ours.detach())

    def make(self, block: Block) -> None:
        try:
            self.connection.send(block)
            error = self.connection.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            hint = ", probably because memory ran out" if code == -signal.SIGKILL else ""
            raise PartnerLost(
                f"a process that prepared line {block.line} and what follows was ended {how}{hint}; fix: prepare with fewer "
                "workers, which goes on with what is finished"
            ) from None
        if error is not None:
            raise error

    def end(self) -> None:
        self._process.kill()  # what it was making is made again, or not at all
        self._process.wait()


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return process_environment(
        {
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
            "OMP_NUM_THREADS": "1",
            "RAYON_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }
    )
