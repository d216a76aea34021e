"""The process that runs vLLM for rollouts: `python -m dskd.rollouts.vllm_server SOCKET MEMORY PARENT`, started by vllm_sampler.py.

vLLM changes torch and torch.distributed for its whole process. Weights come through the shared memory of descriptor MEMORY,
everything else through the socket. It ends with its parent.
"""

from __future__ import annotations

import gc
import mmap
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dskd.errors import InputError
from dskd.modeling.vllm_process import reason_of
from dskd.modeling.vllm_support import INSTALL, cannot_run, on_cpu
from dskd.processes import exit_with_parent
from dskd.rollouts.sampler import only_drawn

INSTEAD = "set rollouts.engine to transformers"


@dataclass(frozen=True)
class Weight:
    """Where a tensor lies in the shared memory; `dtype` is a torch dtype's name."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    start: int
    bytes: int

    def view(self, memory: Tensor) -> Tensor:
        """The tensor itself, of the memory's bytes."""
        part = memory[self.start : self.start + self.bytes]
        return part.view(getattr(torch, self.dtype)).view(self.shape)


@dataclass(frozen=True)
class Request:
    """What to sample from, and how. `config`: a transformers configuration; `length`: of the longest prompt and sample together."""

    config: Any
    weights: tuple[Weight, ...]
    dtype: str
    length: int
    sequences: int
    known: list[bool]  # by token, whether it may be drawn
    stops: list[int]
    temperature: float
    top_p: float
    gpu_memory_utilization: float


def map_memory(descriptor: int, size: int) -> Tensor:
    """The shared memory as uint8 [size]."""
    return torch.frombuffer(mmap.mmap(descriptor, size), dtype=torch.uint8)


def main(arguments: Sequence[str]) -> int:
    socket, memory, parent = map(int, arguments)
    exit_with_parent(parent=parent)
    connection = Connection(socket)
    request: Request = connection.recv()
    try:
        engine = _Engine(request, memory)
    except Exception as error:
        if not isinstance(error, InputError):
            traceback.print_exc()
        connection.send(("failed", reason_of(error)))
        return 1
    connection.send(("ready", None))
    while True:
        try:
            name, given = connection.recv()
        except EOFError:  # the sampler was closed
            engine.close()
            return 0
        try:
            connection.send(("done", engine.reload() if name == "reload" else engine.sample(*given)))
        except Exception as error:
            traceback.print_exc()
            connection.send(("failed", reason_of(error)))
            return 1


class _Engine:
    def __init__(self, request: Request, memory: int) -> None:
        try:
            from vllm import EngineArgs, LLMEngine
            from vllm.platforms import current_platform
        except (ImportError, RuntimeError, OSError) as error:  # a torch or torchvision that it was not built for
            raise InputError(
                f"vLLM is installed but cannot be imported ({reason_of(error)}); "
                f"fix: {INSTEAD}, or {INSTALL} into a fresh environment"
            ) from error
        if reason := cannot_run(request.config, INSTEAD):
            raise InputError(reason)
        self._stops = request.stops
        size = max((weight.start + weight.bytes for weight in request.weights), default=0)
        shared = map_memory(memory, size)
        _register_loader(request.weights, shared)
        gc.freeze()  # vLLM collects garbage several times as it starts
        with tempfile.TemporaryDirectory() as folder:
            request.config.save_pretrained(folder)
            options = {
                "model": folder,
                "load_format": _LOADER,
                "skip_tokenizer_init": True,
                "generation_config": "vllm",  # no sampling rules of the model's own
                "dtype": request.dtype,
                "max_model_len": request.length,
                "max_num_seqs": request.sequences,
                "gpu_memory_utilization": request.gpu_memory_utilization,
                "enable_prefix_caching": False,  # it would keep keys and values of weights that were
                "logits_processors": [_drawing(request.known, request.temperature, request.top_p)],
                "async_scheduling": False,  # each token is to be known when the next is drawn
                "disable_log_stats": True,
                "use_tqdm_on_load": False,
                **on_cpu(
                    request.config,
                    length=request.length,
                    sequences=request.sequences,
                    dtype=request.dtype,
                    cache_bytes=_CPU_CACHE_BYTES,
                ),
            }
            self._engine = LLMEngine.from_engine_args(EngineArgs(**options))
        if current_platform.is_cpu() and self._engine.vllm_config.model_config.is_moe:
            # Found by trial: their packed copies stay those of the start.
            raise InputError(f"vLLM on a CPU takes no new weights of experts; fix: {INSTEAD}")

    def reload(self) -> Any:
        """Take the weights that are now in the shared memory."""
        return self._engine.collective_rpc(_reload)

    def sample(self, prompts: list[list[int]], numbers: np.ndarray) -> list[list[int]]:
        """What is written after each prompt, with the token that stopped it; numbers [prompts, tokens]."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        for k, prompt in enumerate(prompts):
            parameters = SamplingParams(
                temperature=0.0,  # what is to be drawn, the processor has drawn
                max_tokens=numbers.shape[1],
                stop_token_ids=self._stops,
                ignore_eos=True,  # the ids above are all there are
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
                extra_args={_NUMBERS: numbers[k]},
                skip_clone=True,
            )
            self._engine.add_request(str(k), TokensPrompt(prompt_token_ids=prompt), parameters)
        written: dict[int, list[int]] = {}
        while self._engine.has_unfinished_requests():
            finished: list[Any] = [output for output in self._engine.step() if output.finished]
            written |= {int(output.request_id): list(output.outputs[0].token_ids) for output in finished}
        return [written[k] for k in range(len(prompts))]

    def close(self) -> None:
        self._engine.engine_core.shutdown()


_CPU_CACHE_BYTES = 2**31  # of keys and values; beside a training a student is small
_LOADER = "dskd-student"
_NUMBERS = "dskd_numbers"


def _register_loader(weights: Sequence[Weight], memory: Tensor) -> None:
    """Make vLLM load a model from the shared memory; it fails at the start where a weight that it needs is not there."""
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    @register_model_loader(_LOADER)
    class StudentLoader(DefaultModelLoader):
        def download_model(self, model_config: Any) -> None:
            pass

        def get_all_weights(self, model_config: Any, model: Any) -> Iterator[tuple[str, Tensor]]:  # type: ignore[override]
            for weight in weights:
                yield weight.name, weight.view(memory)


def _reload(worker: Any) -> None:
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
    from vllm.platforms import current_platform

    worker.reload_weights()
    if not current_platform.is_cpu():
        return
    # On a CPU vLLM multiplies by packed copies of weights, and does not pack that of a head anew which is the embedding's.
    tables = [m for m in worker.get_model().modules() if isinstance(m, VocabParallelEmbedding)]
    for head in tables:
        if isinstance(head, ParallelLMHead) and any(m is not head and m.weight is head.weight for m in tables):
            head.quant_method.process_weights_after_loading(head)


def _drawing(known: list[bool], temperature: float, top_p: float) -> type:
    """A logits processor that draws the next token of each request by its own numbers, and leaves nothing but it to choose."""
    from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
    from vllm.v1.sample.logits_processor.builtin import process_dict_updates

    class Draw(LogitsProcessor):
        def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
            self._known = torch.tensor(known, device=device)
            # By row of the batch: the numbers of its request, and the tokens that it has written, a list that vLLM adds to.
            self._requests: dict[int, tuple[np.ndarray, list[int]]] = {}

        def is_argmax_invariant(self) -> bool:
            return False

        def update_state(self, batch_update: BatchUpdate | None) -> None:
            process_dict_updates(
                self._requests,
                batch_update,
                lambda parameters, _, written: ((parameters.extra_args or {})[_NUMBERS], written),
            )

        def apply(self, logits: Tensor) -> Tensor:
            rows = [self._requests[k] for k in range(len(logits))]
            numbers = torch.tensor([numbers[len(written)] for numbers, written in rows], dtype=torch.float64)
            return only_drawn(logits, self._known, numbers.to(logits.device), temperature, top_p)

    return Draw


if __name__ == "__main__":
    # Under the name that the requests were pickled with.
    from dskd.rollouts import vllm_server as vllm_process

    sys.exit(vllm_process.main(sys.argv[1:]))
