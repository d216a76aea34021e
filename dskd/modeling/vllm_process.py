"""A process of its own for vLLM, which changes torch and torch.distributed for its whole process: how it is started and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from dskd.modeling.vllm_support import ENVIRONMENT
from dskd.processes import process_environment, python_module

_SECONDS_TO_END = 10
# What torchrun and accelerate tell a process about the training's group: vLLM would take it for its own.
_GROUP = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "RANK", "WORLD_SIZE", "ROLE_NAME")
_GROUP_PREFIXES = ("TORCHELASTIC_", "LOCAL_", "GROUP_", "ROLE_RANK", "ROLE_WORLD")


def start_vllm_process(
    module: str,
    theirs: socket.socket,
    device: torch.device,
    *arguments: str,
    descriptors: Sequence[int] = (),
    devices: int = 1,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `python -m module SOCKET *arguments PARENT`, the leader of a process group.

    Args:
        module: A module of this project that ends with its parent.
        theirs: The end of a socket pair that is for it; it is closed here.
        device: Of this process; vLLM takes the same, and on a GPU the ones after it where it needs several.
        arguments: Handed on.
        descriptors: Files that it is to have.
        devices: How many it needs.
        environment: Further settings of vLLM.
    """
    with theirs:
        return subprocess.Popen(
            python_module(module, str(theirs.fileno()), *arguments, str(os.getpid())),
            pass_fds=(theirs.fileno(), *descriptors),
            env={**_environment(device, devices), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=2,  # standard output is for data
            start_new_session=True,  # an interrupt is for the parent, with which this process ends
        )


def end_vllm_process(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was told to end, and kill it with its workers where it does not."""
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def reason_of(error: BaseException) -> str:
    """An error of vLLM in one line."""
    return " ".join(str(error).split())[:500] or type(error).__name__


def _environment(device: torch.device, devices: int) -> dict[str, str]:
    environment = {
        k: v for k, v in process_environment().items() if k not in _GROUP and not k.startswith(_GROUP_PREFIXES)
    }
    root = str(Path(__file__).parents[2])
    environment |= ENVIRONMENT | {
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),  # the parent waits meanwhile
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    if devices == 1:
        environment["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"  # every training's vLLM would take the same cores
    if device.type == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        first = device.index or 0
        of_all = visible.split(",") if visible else [str(k) for k in range(first + devices)]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(of_all[first : first + devices])
    return environment
