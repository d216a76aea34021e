"""The student's own text by vLLM (`rollouts.engine: vllm`): a process of its own, handed the student's weights before each step.

Weights go through shared memory, and the training keeps its own torch, threads and process group.
"""

from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dskd.errors import InputError, PartnerLost, TrainingFailed
from dskd.modeling.vllm_process import end_vllm_process, start_vllm_process
from dskd.rollouts.sampler import Prompt, Sample, possible_tokens, stop_tokens
from dskd.rollouts.vllm_server import INSTEAD, Request, Weight, map_memory
from dskd.tokenization.vocabulary import Vocabulary

_ALIGNED = 64  # bytes
_SEQUENCES = 256  # that vLLM continues together; where one ends, the next takes its place


class VllmSampler:
    """Samples by vLLM in a process of its own, of the student's weights at the last `update`. InputError where vLLM does not run it.

    `dtype` is that of vLLM's weights and products. `length`: the most tokens that a prompt and its sample have together. `prompts`: of
    a call, about.
    """

    prompts_at_once: int | None = None

    def __init__(
        self,
        student: Any,  # a transformers causal model, maybe with an adapter
        vocabulary: Vocabulary,
        end: int,
        *,
        length: int,
        dtype: str,
        temperature: float = 1.0,
        top_p: float = 1.0,
        gpu_memory_utilization: float = 0.3,
        prompts: int = _SEQUENCES,
    ) -> None:
        self.precision: Callable[[], Any] = nullcontext  # vLLM's is its dtype
        self._student = student
        self._end = end
        model = _plain(student)
        device = next(model.parameters()).device
        if not sys.platform.startswith("linux") or device.type not in ("cpu", "cuda"):
            raise InputError(f"rollouts.engine: vllm shares no weights with a student on {device}; fix: {INSTEAD}")
        if getattr(model.config, "quantization_config", None) is not None:
            raise InputError(f"rollouts.engine: vllm does not take the weights of a quantised student; fix: {INSTEAD}")
        self._convert = _stored_differently(student)
        self._layout, size = _layout(self._weights(), dtype)
        descriptor = os.memfd_create("dskd-rollouts")
        try:
            os.truncate(descriptor, size)
            memory = map_memory(descriptor, size)
            self._views = {weight.name: weight.view(memory) for weight in self._layout}
            self._hand_over()
            self._process, self._connection = _start(descriptor, device)
        finally:
            os.close(descriptor)
        self.close = weakref.finalize(self, _end, self._process, self._connection)
        config = copy.deepcopy(model.config)
        config.architectures = [type(model).__name__]
        request = Request(
            config=config,
            weights=self._layout,
            dtype=dtype,
            length=length,
            sequences=min(prompts, _SEQUENCES),
            known=possible_tokens(vocabulary, end),
            stops=stop_tokens(vocabulary, end),
            temperature=temperature,
            top_p=top_p,
            gpu_memory_utilization=gpu_memory_utilization,
        )
        try:
            self._ask(request)
        except TrainingFailed as error:
            self.close()
            fix = "" if "; fix: " in str(error) else f"; fix: {INSTEAD}"
            raise InputError(f"rollouts.engine: {error}{fix}") from None

    def update(self) -> None:
        """Give vLLM the weights that the student has now."""
        self._hand_over()
        self._ask(("reload", None))

    def sample(self, prompts: Sequence[Prompt], numbers: np.ndarray) -> list[Sample]:
        written = self._ask(("sample", ([prompt.student for prompt in prompts], numbers)))
        return [Sample(ids, ended=ids[-1] == self._end) for ids in written]

    def _ask(self, message: Any) -> Any:
        """The answer of vLLM's process; TrainingFailed where it has none."""
        try:
            self._connection.send(message)
            kind, answer = self._connection.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            raise PartnerLost(
                f"vLLM, which writes the student's text, ended with exit code {code}; fix: what it printed says more; "
                f"where memory ran out, lower rollouts.gpu_memory_utilization or {INSTEAD}"
            ) from None
        if kind == "failed":
            raise TrainingFailed(answer)
        return answer

    @torch.no_grad()
    def _hand_over(self) -> None:
        for name, value in self._weights():
            self._views[name].copy_(value)

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        """The student's weights as a checkpoint of it would hold them."""
        from transformers.core_model_loading import revert_weight_conversion

        with torch.no_grad():
            if self._convert:
                yield from revert_weight_conversion(_plain(self._student), dict(merged_weights(self._student))).items()
            else:
                yield from merged_weights(self._student)


def merged_weights(student: Any) -> Iterator[tuple[str, Tensor]]:
    """The weights by name, each once (a tied head is the embedding), an adapter's product added; the student stays as it is."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = _plain(student)
    adapted = {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    owners: dict[int, str] = {}  # by tensor, the adapted module that it belongs to, or ""
    for name, value in model.state_dict(keep_vars=True).items():
        owner = next((each for each in adapted if name.startswith(f"{each}.")), "")
        if owner and not name.startswith(f"{owner}.base_layer."):
            continue  # the adapter's own
        if id(value) in owners:
            if owner or owners[id(value)]:
                raise InputError(
                    f"lora: {name} is tied and has an adapter, which vllm cannot take; "
                    f"fix: {INSTEAD}, or leave embedding and head out of lora.target_modules"
                )
            continue
        owners[id(value)] = owner
        if owner and name.endswith(".weight"):
            module: Any = adapted[owner]
            value = value + sum(module.get_delta_weight(each) for each in module.active_adapters)
        yield name.replace(f"{owner}.base_layer.", f"{owner}.") if owner else name, value.detach()


def _plain(student: Any) -> Any:
    """The transformers model below an adapter."""
    return student.get_base_model() if hasattr(student, "get_base_model") else student


def _stored_differently(student: Any) -> bool:
    """Whether a checkpoint has other tensors or names than the model, which vLLM knows by those of a checkpoint."""
    from transformers.core_model_loading import revert_weight_conversion

    own = dict(merged_weights(student))
    stored = revert_weight_conversion(_plain(student), dict(own))
    return own.keys() != stored.keys() or any(stored[name].data_ptr() != own[name].data_ptr() for name in own)


def _layout(weights: Iterator[tuple[str, Tensor]], dtype: str) -> tuple[tuple[Weight, ...], int]:
    """(where each tensor lies, bytes of all)."""
    layout, size = [], 0
    for name, value in weights:
        kind = getattr(torch, dtype) if value.is_floating_point() else value.dtype
        held = value.numel() * kind.itemsize
        layout.append(Weight(name, tuple(value.shape), str(kind).removeprefix("torch."), size, held))
        size += -(-held // _ALIGNED) * _ALIGNED
    return tuple(layout), size


def _start(memory: int, device: Any) -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = socket.socketpair()
    process = start_vllm_process(
        "dskd.rollouts.vllm_server",
        theirs,
        device,
        str(memory),
        descriptors=[memory],
        environment={"VLLM_USE_V2_MODEL_RUNNER": "0"},  # it has another interface for logits processors
    )
    return process, Connection(ours.detach())


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
    connection.close()  # at which vLLM's process ends
    end_vllm_process(process)
