"""The completions of one engine, from a process of its own: vLLM changes torch for a whole process, whose end frees its memory.

The process is given a request and sends messages: how many completions it has just finished, then all of them, or an error.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.processes import safe_children
from harness.engines import create_engine
from harness.engines._completion_cache import CompletionCache
from harness.engines._types import Completion, Sampling

_SHOWN = 4000  # characters of the log of a process that failed


@dataclass(frozen=True)
class EngineRequest:
    """What an engine is asked. `max_length`: tokens of the longest prompt and its completion.

    `seeds` are those of the random numbers, one a prompt; counted from `seed` where there are none. `cache` is a file that
    keeps what is finished (`harness.engines._completion_cache`), so that a killed request resumes.
    """

    model: Path
    prompts: list[str]
    sampling: Sampling
    max_length: int
    dtype: str = "float32"
    max_batch_size: int | None = None
    seed: int = 0
    seeds: list[int] | None = None
    cache: Path | None = None


def complete_in_process(engine: str, request: EngineRequest, on_finished: Callable[[int], None]) -> list[Completion]:
    """Load the model into an engine in a new process, complete the prompts, and end the process.

    InputError as of `create_engine`; RuntimeError where the process ends without completions.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.NamedTemporaryFile(prefix="harness-engine-", suffix=".log") as log:
        # A daemon ends with this process, whatever ends it.
        process = context.Process(target=_serve, args=(theirs, log.name, engine, request), daemon=True)
        with safe_children():
            process.start()
        theirs.close()
        try:
            while True:
                kind, content = ours.recv()
                if kind == "finished":
                    on_finished(content)
                elif kind == "input_error":
                    raise InputError(content)
                else:
                    return content
        except EOFError:
            process.join()
            output = Path(log.name).read_text(encoding="utf-8", errors="replace")[-_SHOWN:]
            ended = f"the process of engine {engine} ended with code {process.exitcode}"
            raise RuntimeError(f"{ended}:\n{output}") from None
        finally:
            ours.close()
            process.join(timeout=30)
            process.terminate()


def _serve(messages: Connection[Any, Any], log: str, engine: str, request: EngineRequest) -> None:
    # What libraries print while they load is worth reading only where it is the last that the process printed.
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    try:
        loaded = create_engine(
            engine,
            request.model,
            seed=request.seed,
            max_batch_size=request.max_batch_size,
            max_length=request.max_length,
            dtype=request.dtype,
            no_repeat_ngram=request.sampling.no_repeat_ngram > 0,
        )
        loaded.cache = None if request.cache is None else CompletionCache(request.cache)
        loaded.on_finished = lambda count: messages.send(("finished", count))
        completions = loaded.complete(request.prompts, request.sampling, request.seeds)
        loaded.close()
        messages.send(("completions", completions))
    except InputError as error:
        messages.send(("input_error", str(error)))
