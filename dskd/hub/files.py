"""Which files of a model's repository are needed: settings for planning, safetensors for loading, never a pickle."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from dskd.errors import InputError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# Small files: configurations, tokenizer, chat templates, what vLLM reads of a multimodal model, the card with its licence.
SETTINGS = (
    *("config.json", "generation_config.json", "adapter_config.json", INDEX),
    *("quantize_config.json", "quant_config.json", "hf_quant_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "*.model", "*.tiktoken", "tekken.json"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja"),
    *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
    "README.md",
)
_PICKLES = re.compile(r"(pytorch_model.*|adapter_model)\.(bin|pt|pth)|consolidated.*\.pth")


def settings_files(names: Iterable[str], *, code: bool) -> list[str]:
    """The settings among the files of a repository. code: its Python files too, which loading it would run."""
    patterns = (*SETTINGS, "*.py") if code else SETTINGS
    return [name for name in names if any(fnmatchcase(name, p) and name.count("/") == p.count("/") for p in patterns)]


def weight_files(names: Collection[str], shards: Iterable[str] | None, asked: str) -> list[str]:
    """The files with a model's weights, or an adapter's.

    Args:
        names: all files of the repository.
        shards: the files that its index names; None where there is no index.
        asked: the repository, for errors.

    Returns:
        One file or the shards.

    Raises:
        InputError: where there are none, or pickles alone.
    """
    if WEIGHTS in names:
        return [WEIGHTS]
    if shards is not None:
        wanted = sorted(set(shards))
        if absent := [name for name in wanted if name not in names]:
            raise InputError(
                f"{asked}: {INDEX} names {absent[0]}, which the repository does not have; fix: give another revision"
            )
        return wanted
    if ADAPTER_WEIGHTS in names:
        return [ADAPTER_WEIGHTS]
    repo, _, revision = asked.partition("@")
    at = f" --revision {revision}" if revision else ""
    if pickles := [name for name in names if _PICKLES.fullmatch(name)]:
        raise InputError(
            f"{asked}: has its weights as {pickles[0]} alone, a pickle, which can run code when it is read; fix: `hf download "
            f"{repo}{at} --local-dir DIR` and give DIR if you trust it, or give a repository with {WEIGHTS}"
        )
    raise InputError(f"{asked}: has no {WEIGHTS} and no {INDEX}; fix: give the repository of a model of transformers")
