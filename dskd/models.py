"""Loading models and tokenizers from folders, with errors that say what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.vocabulary import require_offsets


def require_model_folder(folder: Path) -> None:
    """Raise InputError unless `folder` is a model folder."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such model folder; fix: give the path of a folder with config.json and weights")
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json in the model folder; fix: give a folder saved with save_pretrained")


def load_tokenizer(folder: Path) -> Any:
    """The folder's fast tokenizer. Raises InputError where there is none, or it has no offsets or no end of sequence."""
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise InputError(f"{folder}: no such tokenizer folder; fix: give the path of a folder with tokenizer.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{folder}: no tokenizer can be loaded ({reason}); fix: save the tokenizer into the folder"
        ) from error
    require_offsets(tokenizer)
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"{folder / 'tokenizer_config.json'}: eos_token is missing, so a student could not learn to stop; fix: set eos_token"
        )
    return tokenizer


def load_model(folder: Path, dtype: str = "float32") -> Any:
    """A causal model in `dtype` (a torch dtype's name), on the CPU. Raises InputError where the folder holds none."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    require_model_folder(folder)
    try:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{folder}: no causal model can be loaded ({reason}); fix: save the model into the folder"
        ) from error
