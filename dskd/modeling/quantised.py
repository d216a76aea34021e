"""Quantised models (GPTQ, AWQ, FP8 …): whether this machine can load one, said before its weights are downloaded or read."""

from __future__ import annotations

from pathlib import Path

from dskd.errors import InputError
from dskd.io import read_object

FIX = "install what it names, load it on a machine with a GPU that it is for, or give the model that is not quantised"


def require_quantisation(folder: Path) -> None:
    """Check that transformers has what it needs here for the quantisation that a configuration names.

    Args:
        folder: With the model's config.json.

    Raises:
        InputError: Where a package or a GPU is missing, or the description of the quantisation is not to be understood.
    """
    config = folder / "config.json"
    said = read_object(config).get("quantization_config") if config.is_file() else None
    if not said:
        return
    from transformers.quantizers import AutoHfQuantizer

    method = said.get("quant_method") if isinstance(said, dict) else None
    try:
        AutoHfQuantizer.from_config(said, pre_quantized=True).validate_environment(device_map=None, weights_only=True)
    # As the quantisers of transformers fail: a package or a GPU is missing, a key of the description is, or has another form.
    except (ImportError, RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"{folder}: is quantised ({method}) and cannot be loaded here: {reason}; fix: {FIX}"
        ) from error


def quantised_head(folder: Path, name: str) -> InputError:
    """The error for a model whose output head, called `name`, is quantised: it is no matrix that a loss could multiply with."""
    return InputError(
        f"{folder}: its output head {name} is quantised; fix: quantise the model without it (modules_to_not_convert)"
    )
