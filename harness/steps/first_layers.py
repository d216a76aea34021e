"""The first layers of a model as a model of their own: a folder on the disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dskd.errors import InputError, is_out_of_memory
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.modeling.saved_settings import name_end

# Keys of a configuration that may hold a list with a value for each layer.
_OF_LAYERS = re.compile(r"layer|pattern|^(intermediate_size|num_attention_heads|num_key_value_heads)$")
_COUNT = "num_hidden_layers"


def first_layers(source: Path, count: int, output: Path) -> None:
    """Save the first `count` decoder layers of a model, with its embedding, final norm, head and tokenizer.

    What is saved is loaded again and generates two tokens. InputError where the model has fewer layers, or where those do not
    make a model: hybrid ones need a layer of each kind.
    """
    from huggingface_hub.errors import StrictDataclassError

    model, tokenizer = load_model(source, "auto"), load_tokenizer(source)
    kind, config = type(model).__name__, model.config.get_text_config(decoder=True)
    key = _key_of_count(config)
    whole = getattr(config, key)
    if count > whole:
        raise InputError(f"{source}: has {whole} layers, not {count}; ask for fewer")
    try:
        _cut(model, whole, count)
        _shorten(config, key, whole, count)
        name_end(model, tokenizer.eos_token_id)
        model.save_pretrained(output)
        tokenizer.save_pretrained(output)
        _try_out(output, tokenizer)
    except (*_UNFIT, StrictDataclassError) as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{source}: the first {count} of {whole} layers of {kind} make no model ({reason}); "
            "fix: ask for another number of layers, or give another model"
        ) from error
    print(f"first {count} of {whole} layers, {sum(p.numel() for p in model.parameters()):,} parameters")


# What transformers raises for a configuration or a state that fits no model.
_UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError)


def _key_of_count(config: Any) -> str:
    """The key of a configuration that counts the layers, as it is called there."""
    own = vars(config)
    return "decoder_layers" if "decoder_layers" in own else config.attribute_map.get(_COUNT, _COUNT)


def _cut(model: Any, whole: int, count: int) -> None:
    """Drop the layers after the first `count`: of the decoder's lists of modules the largest with as many as there are layers."""
    import torch

    def size(module: Any) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    for part in (model.get_decoder(), model):  # not every model says which part of it is the decoder
        lists = ((name, module) for name, module in part.named_modules() if isinstance(module, torch.nn.ModuleList))
        fitting = [(name, module) for name, module in lists if len(module) == whole]
        if fitting:
            name, layers = max(fitting, key=lambda found: size(found[1]))
            place, _, attribute = name.rpartition(".")
            setattr(part.get_submodule(place), attribute, layers[:count])
            return
    raise ValueError("its layers are in no list of modules")


def _shorten(config: Any, key_of_count: str, whole: int, count: int) -> None:
    """Make a configuration that of fewer layers: their number, and whatever it says of each."""
    settings = vars(config)  # past its checks, which want all of these to agree
    for key, value in list(settings.items()):
        if isinstance(value, (list, tuple)) and len(value) == whole and _OF_LAYERS.search(key):
            settings[key] = value[:count]
    if "attention_types" in settings:  # GPT-Neo's way to write attention_layers
        settings["attention_types"] = [[[kind], 1] for kind in settings["attention_layers"]]
    settings[key_of_count] = count


def _try_out(folder: Path, tokenizer: Any) -> None:
    import torch

    ids = torch.tensor([[tokenizer.eos_token_id] * 2])
    load_model(folder, "auto").generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, do_sample=False, pad_token_id=0
    )
