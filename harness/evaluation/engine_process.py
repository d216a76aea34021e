"""The answers of one engine, in a process of its own: vLLM changes torch for all of a process, whose end gives memory back.

The process is given what to ask and sends messages: how many requests it has just finished, then all answers, or what is wrong.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dskd.errors import InputError
from harness.engines._completion_cache import AnswerStore

if TYPE_CHECKING:
    from harness.engines.base import Sampling


_SHOWN = 4000  # characters of the log of a process that failed


@dataclass(frozen=True)
class Questions:
    """What engines are asked: texts, how to answer them, and `max_length`, the tokens of the longest prompt and its answer.

    `seeds`: for random numbers, one a text; of `seed` on where there are none. `kept`: a file that keeps what is answered
    (`harness.engines._completion_cache`), so that what was killed goes on.
    """

    model: Path
    texts: list[str]
    sampling: Sampling
    max_length: int
    dtype: str = "float32"
    max_batch_size: int | None = None
    seed: int = 0
    seeds: list[int] | None = None
    kept: Path | None = None


@dataclass(frozen=True)
class Answer:
    """One answer as ids and as text: the prompt's ids as the engine was asked, and all that it wrote, its end of sequence too."""

    prompt: list[int]
    ids: list[int]
    text: str
    finish_reason: str
    prompt_truncated: bool = False


def answer(engine: str, questions: Questions, on_finished: Callable[[int], None]) -> list[Answer]:
    """Load the model into an engine in a new process, ask it, and end the process.

    InputError as of `create_engine`; RuntimeError where the process ends without an answer.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.NamedTemporaryFile(prefix=f"{engine}-", suffix=".log") as log:
        # A daemon ends with this process, whatever ends it.
        process = context.Process(target=_serve, args=(theirs, log.name, engine, questions), daemon=True)
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
            said = Path(log.name).read_text(encoding="utf-8", errors="replace")[-_SHOWN:]
            raise RuntimeError(f"the process of engine {engine} ended with code {process.exitcode}:\n{said}") from None
        finally:
            ours.close()
            process.join(timeout=30)
            process.terminate()


def _serve(messages: Connection[Any, Any], log: str, engine: str, questions: Questions) -> None:
    # What libraries print while they load is worth reading only where it is the last that they said.
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    try:
        messages.send(("answers", _answers(messages, engine, questions)))
    except InputError as error:
        messages.send(("input_error", str(error)))


def _answers(messages: Connection[Any, Any], engine: str, questions: Questions) -> list[Answer]:
    from harness.engines import create_engine

    made = create_engine(
        engine,
        questions.model,
        seed=questions.seed,
        max_batch_size=questions.max_batch_size,
        max_length=questions.max_length,
        dtype=questions.dtype,
        no_repeat_ngram=questions.sampling.no_repeat_ngram > 0,
    )
    if questions.kept is not None:
        made.answers = AnswerStore(questions.kept)
    made.on_finished = lambda count: messages.send(("finished", count))
    answered = made.answer(questions.texts, questions.sampling, questions.seeds)
    made.close()
    return [
        Answer(prompt, completion.ids, generation.text, generation.finish_reason, generation.prompt_truncated)
        for prompt, completion, generation in answered
    ]
