"""The output head of a model folder without the model: one tensor of one shard, and what the configuration does to the logits.

The model itself is built on the meta device, where nothing is allocated: it says which of its parameters is the head's, whether that
is the embedding's too, and under which names transformers would look for it in a checkpoint. So a folder of configuration, tokenizer
and the shard with the head is enough, whatever the size of the model.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dskd.errors import InputError
from dskd.modeling.folders import CONFIG, base_of_adapter, is_quantised
from dskd.modeling.language_part import language_model
from dskd.modeling.lm_head import Head, head_of, output_module
from dskd.modeling.loading import empty_model
from dskd.modeling.quantised import quantised_head
from dskd.modeling.stored_tensors import names_in, read_tensor, tensor_files
from dskd.modeling.weight_files import OF_ADAPTER, check_names, require_content
from dskd.tokenization.vocabulary import Vocabulary

_OF_BASE = "base_model.model."  # what peft puts before a base model's names
_LAYER = re.compile(r"\.\d+\.")
_SHOWN = 5  # names in an error


def read_head(
    folder: Path, vocabulary: Vocabulary, *, dtype: str, device: Any, embedding: bool = False
) -> tuple[Head, Tensor | None]:
    """The output head of the model in a folder, equal to that of the loaded model; no layer of the model is allocated.

    Args:
        folder: A model folder, or the folder of an adapter that leaves the head as it is. Of the weights, the shards with the head,
            and with the embedding where it is asked for, suffice.
        vocabulary: Of its whole tokenizer.
        dtype: A torch dtype's name.
        device: Of the result.
        embedding: Whether the input embedding is needed, too.

    Returns:
        (head, embedding [rows, hidden] or None); the embedding is the head's weight itself where the two are tied.

    Raises:
        InputError: Where the folder has no linear head, more than one tensor that may be it, or a quantised one.
    """
    found = find_head(folder, embedding=embedding)
    head, table = found.model.get_output_embeddings(), None
    weight = found.read(found.weight, head.weight).to(device, getattr(torch, dtype))
    bias = None if found.bias is None else found.read(found.bias, head.bias).to(device, getattr(torch, dtype))
    if found.embedding == found.weight:
        table = weight
    elif found.embedding is not None:
        empty = found.model.get_input_embeddings().weight
        table = found.read(found.embedding, empty).to(device, getattr(torch, dtype))
        table = weight if empty is head.weight and torch.equal(weight, table) else table  # as transformers does
    size = vocabulary.truncate_to_head(len(weight), str(folder)).size
    return head_of(found.model, weight, bias, size), table


@dataclass(frozen=True)
class StoredHead:
    """Where a model's head stands in its weights.

    Attributes:
        model: The model, or its language part, on the meta device.
        folder: Of the weights: of an adapter, its base model's.
        places: The file of each tensor of the weights by name.
        weight, bias, embedding: Names there; None for what is not there or not asked for. `embedding` may be `weight`.
    """

    model: Any
    folder: Path
    places: dict[str, Path]
    weight: str
    bias: str | None
    embedding: str | None

    @property
    def files(self) -> list[Path]:
        """The files with these tensors."""
        names = (self.weight, self.bias, self.embedding)
        return sorted({self.places[name] for name in names if name is not None})

    def read(self, name: str, parameter: Tensor) -> Tensor:
        """The tensor of a parameter on the CPU. InputError where it is quantised, or of another shape."""
        tensor = read_tensor(self.places[name], name)
        if not tensor.is_floating_point() or tensor.dtype.itemsize < 2:
            raise quantised_head(self.folder, name)
        if tensor.shape != parameter.shape:
            raise InputError(
                f"{self.places[name]}: {name} is {list(tensor.shape)}, and by the configuration {list(parameter.shape)}; "
                "fix: give the weights that belong to this config.json"
            )
        return tensor


def find_head(folder: Path, *, embedding: bool = False) -> StoredHead:
    """Find the head of the model in a folder by its configuration, index and headers.

    Args:
        folder: As for `read_head`; of the weights, the index suffices.
        embedding: Whether the input embedding is asked for, too.

    Raises:
        InputError: As `read_head`.
    """
    base = base_of_adapter(folder) or folder
    _require_config(base)
    whole = empty_model(folder)
    model = language_model(whole)
    head, table = output_module(model), model.get_input_embeddings()
    wanted = (head, table) if embedding or table.weight is head.weight else (head,)
    if base != folder:
        _require_untouched(folder, [_names_of(whole, module)[0] for module in wanted])
    places = tensor_files(base)
    check_names(base, places)
    names = _by_parameter(whole, places)
    if is_quantised(base):
        _require_plain(base, _names_of(whole, head), names)
    return StoredHead(
        model,
        base,
        places,
        weight=_stored(base, whole, head, "weight", names),
        bias=None if head.bias is None else _stored(base, whole, head, "bias", names),
        embedding=_stored(base, whole, table, "weight", names) if embedding else None,
    )


def _require_config(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such model folder; fix: give the path of a folder with config.json and the head"
        )
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: no config.json in the model folder; fix: copy it from where the model is")
    require_content(folder / CONFIG)


def _names_of(whole: Any, module: nn.Module) -> list[str]:
    return [name for name, other in whole.named_modules(remove_duplicate=False) if other is module]


def _by_parameter(whole: Any, stored: Iterable[str]) -> dict[str, list[str]]:
    """The stored names of each parameter of the model: transformers renames those of older and of other programs."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    renamings = [change for change in get_model_conversion_mapping(whole) if isinstance(change, WeightRenaming)]
    own, prefix = whole.state_dict(), whole.base_model_prefix
    found: dict[str, list[str]] = defaultdict(list)
    for name in sorted(stored):
        renamed, _ = rename_source_key(name, renamings, [], prefix, own)
        if renamed not in own and name in own:  # as transformers: a renaming that was meant for others
            renamed, _ = rename_source_key(name, [], [], prefix, own)
        found[renamed].append(name)
    return found


def _stored(folder: Path, whole: Any, module: Any, part: str, names: dict[str, list[str]]) -> str:
    """The stored name of a module's weight or bias: under its own name, else under another that it is tied to."""
    own = [f"{name}.{part}" for name in _names_of(whole, module)]
    parameter = getattr(module, part)
    others = [name for name, value in whole.named_parameters(remove_duplicate=False) if value is parameter]
    others.sort(key=lambda name: name != whole.all_tied_weights_keys.get(own[0]))
    return _one(folder, [*own, *others], names)


def _one(folder: Path, parameters: list[str], names: dict[str, list[str]]) -> str:
    """The stored name of the first of these parameters that is stored."""
    parameter = next((name for name in parameters if name in names), None)
    if parameter is None:
        outside = sorted(name for several in names.values() for name in several if not _LAYER.search(name))
        raise InputError(
            f"{folder}: has no tensor {parameters[0]}, its output head (outside of its layers: {_listed(outside)}); "
            "fix: copy the file that has it, with the index, or give the weights that belong to this config.json"
        )
    if len(names[parameter]) > 1:
        raise InputError(
            f"{folder}: {_listed(names[parameter])} all stand for {parameter}, its output head; fix: save the model again with "
            "save_pretrained"
        )
    return names[parameter][0]


def _require_plain(folder: Path, modules: list[str], names: dict[str, list[str]]) -> None:
    """InputError where a quantised model has more of its head than weight and bias: scales, or packed weights."""
    plain = {f"{module}.{part}" for module in modules for part in ("weight", "bias")}
    if any(name.startswith(f"{module}.") and name not in plain for name in names for module in modules):
        raise quantised_head(folder, modules[0])


def _require_untouched(adapter: Path, modules: list[str]) -> None:
    """InputError where an adapter changes the head, or the embedding that is needed too: only merged weights have what comes of it.

    A norm before the head may be changed: it makes the states that enter the head, and whoever computes those has it.
    """
    file = next((adapter / name for name in OF_ADAPTER if (adapter / name).is_file()), None)
    if file is None:
        raise InputError(f"{adapter}: has no {OF_ADAPTER[0]}; fix: copy it from where the adapter is")
    for name in names_in(file):
        inside = name.removeprefix(_OF_BASE)
        for module in modules:
            if f".{inside}".find(f".{module}.") >= 0:
                raise InputError(
                    f"{file}: changes {module} ({name}), so the head is not that of its base model; "
                    "fix: merge the adapter into its base model (merge_and_unload of peft) and give that folder"
                )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "") or "none"
