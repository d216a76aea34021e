"""A process of a `PartsEngine`: `python -m harness.engines._part_process SOCKET PARENT`, started by _part.py. It ends with its parent.

It is sent a `PartRequest` and then blocks, and sends ("ready", About), then for each block any number of ("finished", prompts) and one
("done", (results, peak memory, peak memory of a GPU)). ("input_error", text) ends it.
"""

from __future__ import annotations

import random
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy
import torch

from dskd.errors import InputError
from dskd.processes import exit_with_parent
from harness.engines import create_engine


@dataclass(frozen=True)
class PartRequest:
    """What to load: an engine's name, a model folder, and the options of `harness.engines.create_engine`."""

    engine: str
    model: Path
    options: dict[str, Any]
    tensor_parallel: int


@dataclass(frozen=True)
class About:
    """What a process says of its engine."""

    name: str
    block_size: int
    context: int | None
    scored_length: int | None
    scores_texts: bool


def main(arguments: Sequence[str]) -> int:
    """Answer blocks until the socket is closed."""
    socket, parent = map(int, arguments)
    exit_with_parent(parent=parent, kill_group=True)
    connection: Connection[Any, Any] = Connection(socket)
    try:
        return _serve(connection)
    except InputError as error:
        connection.send(("input_error", str(error)))
        return 2


def _serve(connection: Connection[Any, Any]) -> int:
    request: PartRequest = connection.recv()
    seed = request.options.get("seed", 0)
    engine = create_engine(request.engine, request.model, **request.options, tensor_parallel=request.tensor_parallel)
    engine.on_finished = lambda count: connection.send(("finished", count))
    about = About(engine.name, engine.block_size, engine.context, engine.scored_length, engine.scores_texts)
    connection.send(("ready", about))
    while True:
        try:
            block = connection.recv()
        except EOFError:
            engine.close()
            return 0
        # The global seeds, which an engine of one's own may use: no block is to depend on those before.
        random.seed(seed)
        numpy.random.seed(seed)  # noqa: NPY002 - the global state is meant
        torch.manual_seed(seed)
        results = engine.answer(block)
        connection.send(("done", (results, *_peak_memory())))


def _peak_memory() -> tuple[int, int | None]:
    unit = 1 if sys.platform == "darwin" else 1024
    of_process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return of_process, int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None


if __name__ == "__main__":
    # Under the name that the requests were pickled with.
    from harness.engines import _part_process

    sys.exit(_part_process.main(sys.argv[1:]))
