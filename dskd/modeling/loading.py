"""Loading models and tokenizers from folders, with errors that say what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dskd import hub
from dskd.errors import InputError
from dskd.tokenization.vocabulary import require_offsets

_ADAPTER = "adapter_config.json"


def require_model_folder(folder: Path) -> None:
    """Raise InputError unless `folder` is a model folder, or one of an adapter whose base model is there."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such model folder; fix: give the path of a folder with config.json and weights")
    if base_of_adapter(folder) is None and not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json in the model folder; fix: give a folder saved with save_pretrained")


def base_of_adapter(folder: Path) -> Path | None:
    """The folder of the model that the adapter (LoRA) in `folder` belongs to; None where it holds a model of its own.

    Of a base that is a name on the hub, the folder in the hub's cache: its settings are there, its weights perhaps not yet.
    """
    if not (folder / _ADAPTER).is_file():
        return None
    if (on_hub := hub.base_on_hub(folder)) is not None:
        try:
            return _whole_base(
                folder, hub.settings(on_hub.repo, hub.resolve(on_hub.repo, on_hub.revision)), str(on_hub)
            )
        except InputError as error:
            fix = "or set base_model_name_or_path to its folder"
            raise InputError(f"{folder / _ADAPTER}: its base model {error}, {fix}") from None
    try:
        name = json.loads((folder / _ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"]
        base = folder / name  # an absolute path stays as it is
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / _ADAPTER}: names no base_model_name_or_path; fix: set it to the base model's folder"
        ) from error
    if not (base / "config.json").is_file():
        raise InputError(
            f"{folder / _ADAPTER}: the base model '{name}' is not here; "
            "fix: set base_model_name_or_path to its folder (absolute, or from the adapter's folder)"
        )
    return _whole_base(folder, base, name)


def _whole_base(folder: Path, base: Path, name: str) -> Path:
    if _is_quantised(base):
        raise InputError(
            f"{folder / _ADAPTER}: the base model '{name}' is quantised, so the adapter cannot be merged exactly; "
            "fix: set base_model_name_or_path to the model that is not"
        )
    return base


def load_tokenizer(folder: Path) -> Any:
    """The folder's fast tokenizer. Raises InputError where there is none, or it has no offsets or no end of sequence."""
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise InputError(f"{folder}: no such tokenizer folder; fix: give the path of a folder with tokenizer.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **hub.code_arguments(folder))
    except InputError:
        raise
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
    """A causal model in `dtype` (a torch dtype's name), an adapter merged. Raises InputError where the folder holds none.

    Quantised weights stay as they are, and the rest of such a model gets `dtype`.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    require_model_folder(folder)
    base = base_of_adapter(hub.model_folder(folder))
    code = hub.code_arguments(base or folder)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            base or folder, dtype=getattr(torch, dtype), local_files_only=True, **code
        )
        if base is not None:
            return _merged(model, folder)
    # Each quantisation has a package of its own, whose absence is an ImportError.
    except (OSError, ValueError, SafetensorError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{folder}: no causal model can be loaded ({reason}); fix: save the model into the folder"
        ) from error
    if _is_quantised(folder):
        _require_plain_head(model, folder)
    return model


def _merged(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(adapter), local_files_only=True).merge_and_unload()
    except (RuntimeError, KeyError) as error:  # other shapes than the base model's, other names
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"the adapter does not fit its base model: {reason}") from error


def _is_quantised(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError:
        return False  # transformers says what is wrong with it
    return bool(config.get("quantization_config"))


def _require_plain_head(model: Any, folder: Path) -> None:
    """A quantised head is no matrix that a loss could multiply with."""
    import torch

    head = model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    plain = isinstance(weight, torch.Tensor) and type(weight.data) is torch.Tensor and weight.is_floating_point()
    if not (isinstance(head, torch.nn.Linear) and plain):
        name = next((name for name, module in model.named_modules() if module is head), "lm_head")
        raise InputError(
            f"{folder}: its output head {name} is quantised; fix: quantise the model without it (modules_to_not_convert)"
        )
