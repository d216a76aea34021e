"""Low-rank adapters (LoRA, arXiv 2106.09685) by peft: a student that trains one, and the ordinary model that it amounts to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from dskd.errors import InputError
from dskd.options import Options

ADAPTER = "adapter"  # the folder of the adapter alone, inside the merged model's


class LoraOptions(Options):
    """Which weights get a low-rank adapter, and its size. The output head gets one only if it is named."""

    rank: int = Field(16, gt=0)
    alpha: int = Field(32, gt=0, description="the adapter's output is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    target_modules: str | list[str] = Field(
        "all-linear", description="names of modules, or all linear ones but the head"
    )


def add_adapter(model: Any, options: LoraOptions, seed: int) -> Any:
    """The model with a new adapter, which alone is trained. Raises InputError for modules that the model does not have."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=options.target_modules,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"lora.target_modules: {reason}; fix: name modules of the model") from None


def is_adapted(model: Any) -> bool:
    """Whether the model is one of `add_adapter`."""
    return hasattr(model, "peft_config")


def load_adapter(model: Any, folder: Path) -> None:
    """Put the adapter's weights that `model.save_pretrained(folder)` wrote into the model."""
    from peft import load_peft_weights, set_peft_model_state_dict

    set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))


def save_merged(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write the model that base and adapter amount to, and the adapter alone in a folder inside. Merges the adapter in place."""
    model.save_pretrained(folder / ADAPTER)
    model.merge_and_unload().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
