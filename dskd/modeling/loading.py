"""Loading models and tokenizers from folders, with errors that say what is missing."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from dskd import hub
from dskd.errors import InputError, is_disk_full, is_out_of_memory
from dskd.modeling.folders import is_quantised, parts_of, require_model_folder, tokenizer_folder
from dskd.modeling.language_part import auto_class, language_model
from dskd.modeling.quantised import quantised_head, require_quantisation
from dskd.modeling.saved_settings import read_generation_config, valid_settings
from dskd.tokenization.vocabulary import require_offsets

_BROKEN = (UnpicklingError, EOFError, LookupError, RuntimeError)
_SHOWN = 3  # names of weights in an error


def load_tokenizer(folder: Path) -> Any:
    """The folder's fast tokenizer. Raises InputError where there is none, or it has no offsets or no end of sequence."""
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise InputError(f"{folder}: no such tokenizer folder; fix: give the path of a folder with tokenizer.json")
    place = tokenizer_folder(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True, **hub.code_arguments(place))
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{place}: no tokenizer can be loaded ({reason}); fix: save the tokenizer into the folder"
        ) from error
    require_offsets(tokenizer)
    if tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False) == 0:
        raise InputError(
            f"{place}: the tokenizer has added tokens alone, and no vocabulary; fix: add tokenizer.json, or vocab.json and merges.txt"
        )
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"{place / 'tokenizer_config.json'}: eos_token is missing, so a student could not learn to stop; fix: set eos_token"
        )
    return tokenizer


def load_config(folder: Path) -> Any:
    """The configuration of the model in a folder, of an adapter's base model. Raises InputError where transformers knows none."""
    from transformers import AutoConfig

    place = parts_of(folder).model
    try:
        return AutoConfig.from_pretrained(place, local_files_only=True, **hub.code_arguments(place))
    except InputError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{place / 'config.json'}: transformers cannot read it ({_first_line(error)}); fix: save the model again"
        ) from error


def empty_model(folder: Path) -> Any:
    """The model that `load_model` makes the language part of, as its configuration says it: on the meta device, without any weight.

    Raises InputError where transformers has no causal model for the configuration.
    """
    import torch

    place = parts_of(folder).model
    config, code = load_config(folder), hub.code_arguments(place)
    try:
        with torch.device("meta"):
            return auto_class(place, code).from_config(config, **code)
    except InputError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder}: no causal model ({_first_line(error)}); fix: give a causal language model"
        ) from error


def load_model(folder: Path, dtype: str = "float32") -> Any:
    """A causal model, an adapter merged, whose every weight is from the folder.

    Quantised weights stay as they are, and the rest of such a model gets `dtype`. Its generation settings are made such that it
    can be saved (`dskd.modeling.saved_settings`).

    Args:
        folder: A model folder, or an adapter's.
        dtype: A torch dtype's name, or "auto" for that of the weights.

    Raises:
        InputError: Where the folder holds no causal model, or its weights are not those of the configuration: missing ones would
            be random.
    """
    import torch
    from safetensors import SafetensorError

    require_model_folder(hub.model_folder(folder))  # which has the base of an adapter there
    parts = parts_of(folder)
    code = hub.code_arguments(parts.model)
    require_quantisation(parts.model)
    settings = None if parts.generation_config is None else read_generation_config(parts.generation_config)
    try:
        loaded: Any = auto_class(parts.model, code).from_pretrained(
            parts.model,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            local_files_only=True,
            generation_config=settings,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported with the other weights that do not fit
            **code,
        )
        model, found = loaded
        if parts.is_adapter:
            model = _merged(model, folder)
    # Each quantisation has a package of its own, whose absence is an ImportError; a broken pickle may raise any of the rest.
    except (OSError, ValueError, SafetensorError, ImportError, *_BROKEN) as error:
        if isinstance(error, InputError) or is_out_of_memory(error) or is_disk_full(error):
            raise
        raise InputError(
            f"{folder}: no causal model can be loaded ({_first_line(error)}); fix: save the model into the folder"
        ) from error
    _require_all_weights(model, found, parts.model)
    model = language_model(model)
    valid_settings(model)
    if is_quantised(parts.model):
        _require_plain_head(model, folder)
    return model


def _require_all_weights(model: Any, found: dict[str, Any], folder: Path) -> None:
    """InputError for weights that the folder lacks, has too much or has in other shapes, but for what transformers itself leaves out."""
    kind = type(model).__name__
    wrong = []
    if missing := found["missing_keys"]:
        wrong.append(f"{len(missing)} weights of {kind} are missing and would be random ({_names(missing)})")
    if unexpected := [] if is_quantised(folder) else found["unexpected_keys"]:  # scales that a kernel may use or not
        wrong.append(f"{len(unexpected)} weights in it have no place in {kind} ({_names(unexpected)})")
    if other := found["mismatched_keys"]:
        name, given, expected = min(other)
        shapes = f"{name} is {list(given)}, and by the configuration {list(expected)}"
        wrong.append(f"{len(other)} weights have another shape than the configuration says ({shapes})")
    if wrong:
        raise InputError(
            f"{folder}: {'; '.join(wrong)}; fix: save the model with save_pretrained from the class that config.json names, "
            "or give the weights that belong to this config.json"
        )


def _names(keys: Collection[str]) -> str:
    first = sorted(keys)[:_SHOWN]
    return ", ".join(first) + (", …" if len(keys) > len(first) else "")


def _merged(model: Any, adapter: Path) -> Any:
    from peft import PeftModel, load_peft_weights, set_peft_model_state_dict

    try:
        adapted = PeftModel.from_pretrained(model, str(adapter), local_files_only=True)
        found: Any = set_peft_model_state_dict(adapted, load_peft_weights(str(adapter), device="cpu"))
    except (RuntimeError, KeyError) as error:  # other shapes than the base model's, other names
        if is_out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"the adapter does not fit its base model: {reason}") from error
    # Of the base model's own weights an adapter's file has none; those of the adapter are named after it.
    missing = [name for name in found.missing_keys if f".{adapted.active_adapter}." in f"{name}."]
    for keys, what in ((missing, "are missing in it"), (found.unexpected_keys, "of it have no place there")):
        if keys:
            raise ValueError(f"the adapter does not fit its base model: {len(keys)} weights {what} ({_names(keys)})")
    return adapted.merge_and_unload()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _require_plain_head(model: Any, folder: Path) -> None:
    import torch

    head = model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    plain = isinstance(weight, torch.Tensor) and type(weight.data) is torch.Tensor and weight.is_floating_point()
    if not (isinstance(head, torch.nn.Linear) and plain):
        name = next((name for name, module in model.named_modules() if module is head), "lm_head")
        raise quantised_head(folder, name)
