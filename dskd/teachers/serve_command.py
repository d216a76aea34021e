"""The line that starts a stock vLLM server with which a model can teach. Nothing here imports vLLM, which need not be on this machine."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from dskd import hub
from dskd.errors import InputError
from dskd.hub.names import MAIN
from dskd.io import read_object
from dskd.modeling.folders import CONFIG, text_config
from dskd.modeling.weight_files import ADAPTER_CONFIG

log = logging.getLogger(__name__)

Served = Literal["hidden_states", "top_k", "text_log_probabilities", "responses"]

_POOLER = {"task": "token_embed", "use_activation": False}  # every token's state, and not normalised
# The scores of a prompt's tokens over the whole vocabulary are in memory at once, which vLLM does not plan for: 2,048 tokens of a
# vocabulary of 150,000 are 1.2 GB.
_PROMPT_TOKENS_AT_ONCE = 2048
# The CPU build has no distribution that is called vllm, without which the command `vllm` does not start.
_CPU = ("python", "-P", "-m", "vllm.entrypoints.openai.api_server", "--model")
# GiB, taken at the start: enough, as no answer is written and a text's keys are needed once. Without it, half of the memory goes.
_CPU_CACHE = "VLLM_CPU_KVCACHE_SPACE=1"
# Models with layers between the last hidden state, which a server gives, and the head that a training has.
_BETWEEN = {
    "modernbert-decoder": "a dense layer and a norm",
    "blt": "a decoder of bytes",
    "reformer": "two halves that are put together",
}
_CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def serve_command(
    model: str,
    *,
    kind: Served = "hidden_states",
    name: str | None = None,
    port: int = 8000,
    dtype: str | None = None,
    tensor_parallel: int = 1,
    max_model_len: int | None = None,
    k: int = 20,
    cpu: bool = False,
) -> str:
    """One line for a shell.

    Args:
        model: A folder or a name on the hub, with or without @revision.
        kind: What the server is to give.
        name: Of the model on the server, by default `model`.
        port: The server's.
        dtype: What the server computes in, by default what the model is stored in.
        tensor_parallel: GPUs that share the model.
        max_model_len: Tokens of the longest text, by default the model's.
        k: Of top_k.
        cpu: Whether the server runs on vLLM's CPU build.

    Raises:
        InputError: For a model whose outputs a server does not give in that way, and for texts longer than it has positions.
    """
    repo = hub.parse(model)
    require_servable(model, kind, max_model_len)
    words = [_CPU_CACHE, *_CPU] if cpu else ["vllm", "serve"]
    words += [model] if repo is None else [repo.repo]
    if repo is not None and repo.revision != MAIN:
        words += ["--revision", repo.revision]
    words += _arguments(kind, k)
    for flag, value in (("--served-model-name", name), ("--dtype", dtype), ("--max-model-len", max_model_len)):
        words += [] if value is None else [flag, str(value)]
    words += ["--tensor-parallel-size", str(tensor_parallel)] if tensor_parallel > 1 else []
    words += ["--port", str(port)]
    words += ["--enforce-eager"] if cpu else []  # compiling takes longer than it saves
    return shlex.join(words)


def _arguments(kind: Served, k: int) -> Iterator[str]:
    if kind == "hidden_states":
        yield from ("--runner", "pooling", "--convert", "embed", "--pooler-config", json.dumps(_POOLER))
    elif kind in {"top_k", "text_log_probabilities"}:
        if kind == "top_k":
            yield from ("--max-logprobs", str(k))
        yield from ("--max-num-batched-tokens", str(_PROMPT_TOKENS_AT_ONCE))


def require_servable(model: str, kind: Served, max_model_len: int | None) -> None:
    """Raise InputError where a server does not give what a training needs of this model, as far as its configuration says.

    Args:
        model: A folder or a name on the hub, whose configuration is read from the cache or the hub.
        kind: What the server is to give.
        max_model_len: Tokens of the longest text.
    """
    folder = Path(model)
    if (name := hub.parse(model)) is not None:
        try:
            folder = hub.settings(name.repo, hub.resolve(name.repo, name.revision))
        except hub.HubUnreachable as error:  # the server may reach it
            log.warning("%s: whether it can teach was not checked (%s)", model, str(error).partition("; fix: ")[0])
            return
    if (folder / ADAPTER_CONFIG).is_file() and not (folder / CONFIG).is_file():
        raise InputError(f"{model}: is an adapter; fix: merge it into its base model, and serve that folder")
    if not (folder / CONFIG).is_file():
        raise InputError(f"{model}: no model folder (no {CONFIG}); fix: give a model folder, or a name on the hub")
    config = read_object(folder / CONFIG)
    if reason := _unsuitable(config, kind):
        raise InputError(f"{model}: {reason}")
    text = text_config(config)
    positions = text.get("max_position_embeddings") or text.get("n_positions")
    if max_model_len is not None and positions is not None and max_model_len > positions:
        raise InputError(
            f"{model}: has {positions:,} positions, and --max-model-len asks for {max_model_len:,}; fix: give at most {positions}"
        )


def _unsuitable(config: dict[str, Any], kind: Served) -> str | None:
    names = config.get("architectures") or []
    if config.get("is_encoder_decoder") or not any(str(name).endswith(_CAUSAL) for name in names):
        return f"{', '.join(map(str, names)) or 'its config.json'} is no causal language model; fix: serve one that is"
    between = _BETWEEN.get(str(config.get("model_type")))
    if kind == "hidden_states" and between is not None:
        return (
            f"has {between} between its last hidden state, which a server gives, and its head; "
            "fix: --kind top_k or text_log_probabilities, or use it in the training itself"
        )
    return None
