"""Hidden states by vLLM, in a process of its own: `runner="pooling"` gives what enters the head for every token, after the last norm.

vLLM changes torch and torch.distributed for its whole process, and its memory is the whole device's. So does no other part of a run.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from dskd.errors import InputError, PartnerLost, TrainingFailed
from dskd.modeling.vllm_process import end_vllm_process, start_vllm_process
from dskd.modeling.vllm_support import INSTALL
from dskd.teachers.engines.base import Answers, TeacherEngine
from dskd.teachers.engines.vllm_server import INSTEAD, Request
from dskd.teachers.questions import Question


class VllmCannotRun(InputError):
    """vLLM is not here, or does not run the model here."""


class VllmEngine(TeacherEngine):
    """A model that vLLM runs.

    Args:
        folder: A folder with a whole model; for an adapter, see `dskd.modeling.merged.whole_model`. Needed until this returns.
        dtype: A torch dtype's name: of products, and of weights that are not quantised.
        device: A CPU, or the first GPU.
        length: Tokens of the longest text.
        batch_tokens: The largest batch.
        tensor_parallel: Number of GPUs that share each layer.
        gpu_memory_utilization: Share of each GPU's memory; the rest is for the head's products in this process.
        name: Of the model in errors, by default the folder.

    Raises:
        VllmCannotRun: Where vLLM is not installed, does not know the model, or does not start with it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dtype: str,
        device: Any,
        length: int,
        batch_tokens: int,
        tensor_parallel: int = 1,
        gpu_memory_utilization: float = 0.85,
        name: str | None = None,
    ) -> None:
        if find_spec("vllm") is None:
            raise VllmCannotRun(f"engine: vLLM is not installed; fix: {INSTALL}, or {INSTEAD}")
        self._name = name or str(folder)
        self._dtype = getattr(torch, dtype)
        self._socket, theirs = socket.socketpair()
        self._process = start_vllm_process(
            "dskd.teachers.engines.vllm_server",
            theirs,
            torch.device(device),
            devices=tensor_parallel,
            environment={
                "VLLM_WORKER_MULTIPROC_METHOD": "spawn"
            },  # a fork would lack the thread that watches the parent
        )
        self._connection = Connection(os.dup(self._socket.fileno()))
        self._pending: deque[tuple[Future[Answers], int]] = deque()
        self._end = weakref.finalize(self, _end, self._process, self._socket)
        request = Request(folder, dtype, length, batch_tokens, tensor_parallel, gpu_memory_utilization)
        try:
            self._connection.send(request)
            kind, answer = self._connection.recv()
        except (EOFError, OSError):
            kind, answer = "failed", str(self._ended())
        if kind == "failed":
            self.close()
            fix = "" if "; fix: " in answer else f"; fix: {INSTEAD}"
            raise VllmCannotRun(f"{self._name}: vLLM does not run it: {answer}{fix}")
        self._reader = threading.Thread(target=self._read, daemon=True, name="vllm-answers")
        self._reader.start()

    def ask(self, questions: Sequence[Question]) -> Future[Answers]:
        future: Future[Answers] = Future()
        # The last token of a text is a label alone: nothing is asked about it.
        texts = [torch.tensor(question.ids[:-1], dtype=torch.int32).numpy() for question in questions]
        self._pending.append((future, sum(len(question.positions) for question in questions)))
        try:
            self._connection.send((texts, [question.positions for question in questions]))
        except OSError:
            self._fail(self._ended())
        return future

    def close(self) -> None:
        self._end()

    def _read(self) -> None:
        """Resolve what was asked, in its order, until the process is gone."""
        try:
            while True:
                kind, answer = self._connection.recv()
                if kind == "failed":
                    self._fail(TrainingFailed(f"{self._name}: vLLM: {answer}; fix: what it printed says more"))
                    return
                hidden = torch.empty(answer, dtype=self._dtype)
                self._connection.recv_bytes_into(hidden.view(torch.uint8).view(-1).numpy().data)
                future, positions = self._pending.popleft()
                assert len(hidden) == positions
                future.set_result({"hidden": hidden})
        except (EOFError, OSError):
            self._fail(self._ended())

    def _fail(self, error: TrainingFailed) -> None:
        with suppress(IndexError):
            while True:
                self._pending.popleft()[0].set_exception(error)

    def _ended(self) -> TrainingFailed:
        code = self._process.wait()
        return PartnerLost(
            f"{self._name}: vLLM ended with exit code {code}; fix: what it printed says more; where memory ran out, give a smaller "
            f"batch_tokens or a larger tensor_parallel, or {INSTEAD}; what is written stays"
        )


def _end(process: subprocess.Popen[bytes], ours: socket.socket) -> None:
    with suppress(OSError):  # the process is gone already
        ours.shutdown(socket.SHUT_RDWR)  # at which vLLM's process ends
    ours.close()
    end_vllm_process(process)
