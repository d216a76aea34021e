"""The process that runs vLLM for teachers: `python -m dskd.teachers.engines.vllm_server SOCKET PARENT`, started by vllm.py.

It answers one batch of texts after the other, and each batch alone: what else is asked cannot change the last bits of an answer. It
ends with its parent, and so do vLLM's workers.
"""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dskd import hub
from dskd.errors import InputError
from dskd.modeling.loading import load_config
from dskd.modeling.vllm_process import reason_of
from dskd.modeling.vllm_support import INSTALL, cannot_run, on_cpu
from dskd.processes import exit_with_parent

INSTEAD = "set engine to transformers"
_SEQUENCES = 256  # that run at once


@dataclass(frozen=True)
class Request:
    """What to run, and how.

    Attributes:
        folder: A folder with a whole model.
        dtype: Of products, and of weights that are not quantised.
        length: Tokens of the longest text.
        batch_tokens: Of the largest batch.
        tensor_parallel: Number of devices that share each layer.
        gpu_memory_utilization: Share of a GPU's memory.
    """

    folder: Path
    dtype: str
    length: int
    batch_tokens: int
    tensor_parallel: int
    gpu_memory_utilization: float


def main(arguments: Sequence[str]) -> int:
    socket, parent = map(int, arguments)
    exit_with_parent(parent=parent, kill_group=True)
    connection = Connection(socket)
    request: Request = connection.recv()
    try:
        engine = _Engine(request)
    except Exception as error:
        if not isinstance(error, InputError):
            traceback.print_exc()
        connection.send(("failed", reason_of(error)))
        return 1
    connection.send(("ready", None))
    while True:
        try:
            texts, positions = connection.recv()
        except EOFError:  # closed
            engine.close()
            return 0
        try:
            hidden = engine.answer(texts, positions)
        except Exception as error:
            traceback.print_exc()
            connection.send(("failed", reason_of(error)))
            return 1
        try:
            connection.send(("done", tuple(hidden.shape)))
            connection.send_bytes(hidden.view(torch.uint8).view(-1).numpy().data)
        except OSError:  # closed meanwhile
            engine.close()
            return 0


class _Engine:
    def __init__(self, request: Request) -> None:
        try:
            from vllm import EngineArgs, LLMEngine
            from vllm.config import PoolerConfig
        except (ImportError, RuntimeError, OSError) as error:  # a torch or torchvision that it was not built for
            raise InputError(
                f"vLLM cannot be imported ({reason_of(error)}); fix: {INSTEAD}, or {INSTALL} into a fresh environment"
            ) from error
        config = load_config(request.folder)
        if reason := cannot_run(config, INSTEAD):
            raise InputError(reason)
        self._dtype = getattr(torch, request.dtype)
        most = max(request.batch_tokens, request.length)
        sequences = min(_SEQUENCES, most)
        options: dict[str, Any] = {
            "model": str(request.folder),
            "skip_tokenizer_init": True,
            # The states of every token after the last norm, as they are: neither projected nor of length 1.
            "runner": "pooling",
            "convert": "embed",
            "pooler_config": PoolerConfig(task="token_embed", use_activation=False),
            "dtype": request.dtype,
            "max_model_len": request.length,
            "max_num_batched_tokens": most,
            "max_num_seqs": sequences,
            "enable_chunked_prefill": False,
            "enable_prefix_caching": False,
            "tensor_parallel_size": request.tensor_parallel,
            "gpu_memory_utilization": request.gpu_memory_utilization,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            **hub.code_arguments(request.folder),
            **on_cpu(config, length=request.length, sequences=sequences, dtype=request.dtype),
        }
        gc.freeze()  # vLLM collects garbage several times as it starts
        # LLMEngine rather than LLM, which wraps it and brings the web server's modules along.
        self._engine = LLMEngine.from_engine_args(EngineArgs(**options))
        if (attention := self._engine.vllm_config.model_config.attn_type) in ("encoder_only", "encoder_decoder"):
            raise InputError(f"is no causal language model for vLLM ({attention}); fix: use a causal language model")

    def answer(self, texts: Sequence[np.ndarray], positions: Sequence[np.ndarray]) -> Tensor:
        """The states at these positions of each text, one after the other [positions, hidden]."""
        from vllm import PoolingParams, TokensPrompt

        for number, ids in enumerate(texts):
            parameters = PoolingParams(task="token_embed", use_activation=False)
            self._engine.add_request(str(number), TokensPrompt(prompt_token_ids=ids.tolist()), parameters)
        found: dict[int, Tensor] = {}
        while self._engine.has_unfinished_requests():
            outputs: list[Any] = self._engine.step()
            for output in outputs:
                number = int(output.request_id)
                # vLLM gives float32, whatever it computes in: nothing is rounded here.
                found[number] = output.outputs.data[torch.from_numpy(positions[number])].to(self._dtype)
        return torch.cat([found[number] for number in range(len(texts))])

    def close(self) -> None:
        self._engine.engine_core.shutdown()


if __name__ == "__main__":
    # Under the name that the requests were pickled with.
    from dskd.teachers.engines import vllm_server as vllm_process

    sys.exit(vllm_process.main(sys.argv[1:]))
