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
from typing import Any, NamedTuple

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
    weight = found.read(found.weight, dtype).to(device)
    bias = None if found.bias is None else found.read(found.bias, dtype).to(device)
    table = None
    if found.embedding is not None:
        table = weight
        if found.embedding.name != found.weight.name:
            stored = found.read(found.embedding, dtype).to(device)
            # transformers, too, ties two that are stored only where they are equal
            is_tied = found.embedding.value is found.weight.value and torch.equal(weight, stored)
            table = weight if is_tied else stored
    size = vocabulary.truncate_to_head(len(weight), str(folder)).size
    return head_of(found.model, weight, bias, size), table


class StoredParameter(NamedTuple):
    """A parameter of a model, and where its weights have it.

    Attributes:
        name: Of the tensor that is stored.
        file: That has it; it need not be there.
        parameter: Its name in the model that transformers makes.
        value: The model's parameter itself, on the meta device.
    """

    name: str
    file: Path
    parameter: str
    value: Tensor


@dataclass(frozen=True)
class StoredHead:
    """Where a model's head stands in its weights.

    Attributes:
        folder: Of the weights: of an adapter, its base model's.
        whole, model: What transformers makes of the configuration, and its language part; both on the meta device.
        weight, bias, embedding: None for what is not there or not asked for. With tied weights, `embedding` may be `weight`.
    """

    folder: Path
    whole: Any
    model: Any
    weight: StoredParameter
    bias: StoredParameter | None
    embedding: StoredParameter | None

    @property
    def files(self) -> list[Path]:
        """The files with these tensors."""
        return sorted({stored.file for stored in (self.weight, self.bias, self.embedding) if stored is not None})

    def read(self, stored: StoredParameter, dtype: str) -> Tensor:
        """A tensor as transformers would load it. InputError where it is quantised, or not what the configuration says."""
        tensor = read_tensor(stored.file, stored.name)
        if not tensor.is_floating_point() or tensor.dtype.itemsize < 2:
            raise quantised_head(self.folder, stored.name)
        if tensor.shape != stored.value.shape:
            given, expected = list(tensor.shape), list(stored.value.shape)
            raise InputError(
                f"{stored.file}: {stored.name} is {given}, and by the configuration {expected}; "
                "fix: give the weights that belong to this config.json"
            )
        # Some models keep float32 for a part of them whatever they are loaded in.
        kept: dict[str, torch.dtype] = self.whole._get_dtype_plan(getattr(torch, dtype))
        own = (kept[pattern] for pattern in kept if re.search(pattern.replace("*", ".*"), stored.parameter))
        return tensor.to(next(own, getattr(torch, dtype)))


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
    files = tensor_files(base)
    check_names(base, files)
    names = _by_parameter(whole, files)
    if is_quantised(base):
        _require_plain(base, _names_of(whole, head), names)

    def stored(module: Any, part: str) -> StoredParameter:
        parameter, name = _stored(base, whole, module, part, names)
        return StoredParameter(name, files[name], parameter, getattr(module, part))

    return StoredHead(
        base,
        whole,
        model,
        weight=stored(head, "weight"),
        bias=None if head.bias is None else stored(head, "bias"),
        embedding=stored(table, "weight") if embedding else None,
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


def _stored(folder: Path, whole: Any, module: Any, part: str, names: dict[str, list[str]]) -> tuple[str, str]:
    """(name in the model, stored name) of a module's weight or bias, under its own name, else under another that it is tied to."""
    own = [f"{name}.{part}" for name in _names_of(whole, module)]
    parameter = getattr(module, part)
    others = [name for name, value in whole.named_parameters(remove_duplicate=False) if value is parameter]
    others.sort(key=lambda name: name != whole.all_tied_weights_keys.get(own[0]))
    found = next((name for name in (*own, *others) if name in names), None)
    if found is None:
        outside = sorted(name for several in names.values() for name in several if not _LAYER.search(name))
        raise InputError(
            f"{folder}: has no tensor {own[0]} (outside of its layers: {_listed(outside)}); "
            "fix: copy the file that has it, with the index, or give the weights that belong to this config.json"
        )
    if len(names[found]) > 1:
        raise InputError(
            f"{folder}: {_listed(names[found])} all stand for {found}; fix: save the model again with save_pretrained"
        )
    return found, names[found][0]


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
