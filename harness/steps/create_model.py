"""Model folders made on the disk: from random weights, or as a copy with another tokenizer."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.io import read_object, write_atomic
from dskd.modeling.folders import parts_of, require_model_folder
from dskd.modeling.loading import load_tokenizer
from dskd.modeling.weight_files import ADAPTER_CONFIG
from dskd.tokenization.prompt_templates import Template, set_template

_WEIGHTS = (".safetensors", ".bin")


def new_model(config: dict[str, Any], tokenizer_folder: Path, seed: int, output: Path) -> None:
    """Save a model with random weights and its tokenizer.

    The vocabulary size and the special ids come from the tokenizer, so that they cannot disagree with it. InputError for a
    configuration that transformers does not know or accept.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = load_tokenizer(tokenizer_folder)
    special = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    try:
        made = AutoConfig.for_model(**{"vocab_size": len(tokenizer), **special, **config})
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(made, dtype=torch.float32)
    except (TypeError, ValueError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"config: transformers does not accept it ({reason}); correct it") from error
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    print(f"{config['model_type']} with {sum(p.numel() for p in model.parameters()):,} parameters")


def copy_model(source: Path, output: Path) -> None:
    """Copy a model's folder, or an adapter's, with a tokenizer of its own, which an adapter may have from its base model.

    Weights are linked where the file system can, so that a large model does not take its room twice; all else is copied, since it
    may be written anew. Of a folder of links, as the hub's cache has, what they point to is linked or copied.
    """
    from transformers import AutoTokenizer

    parts = parts_of(source)
    tokenizer = AutoTokenizer.from_pretrained(parts.tokenizer, local_files_only=True)
    output.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.name.startswith(("tokenizer", "chat_template")):
            if file.suffix in _WEIGHTS:
                _link(file.resolve(), output / file.name)
            else:
                shutil.copy2(file, output / file.name)
    if parts.is_adapter:
        settings = read_object(output / ADAPTER_CONFIG)
        settings["base_model_name_or_path"] = str(
            parts.model.resolve()
        )  # it may be relative to the folder that is copied
        write_atomic(output / ADAPTER_CONFIG, json.dumps(settings, indent=2) + "\n")
    _save_tokenizer(tokenizer, output)


def check_copy(folder: Path) -> None:
    """InputError for a copy that is no whole model folder, so that none counts as done."""
    require_model_folder(folder)
    load_tokenizer(folder)


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(file, target)


def add_bos_token(folder: Path) -> None:
    """Make the tokenizer of a copied model add its begin-of-sequence token. InputError where it has none."""
    from tokenizers.processors import Sequence as Processors
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    token, identifier = tokenizer.bos_token, tokenizer.bos_token_id
    if identifier is None:
        raise InputError(f"{folder}: its tokenizer has no bos_token to add; leave out add_bos_token")
    # Tokenizer classes that know the setting undo any other change when they are loaded; the others do not know the setting.
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, add_bos_token=True)
    if tokenizer("a")["input_ids"][0] != identifier:
        pair, special = f"{token} $A {token} $B:1", [(token, identifier)]
        template = TemplateProcessing(single=f"{token} $A", pair=pair, special_tokens=special)
        before = tokenizer.backend_tokenizer.post_processor
        tokenizer.backend_tokenizer.post_processor = Processors([before, template]) if before else template
    _save_tokenizer(tokenizer, folder)
    if AutoTokenizer.from_pretrained(folder, local_files_only=True)("a")["input_ids"][0] != identifier:
        raise InputError(f"{folder}: its tokenizer cannot be made to add {token!r}; leave out add_bos_token")
    print(f"a copy whose tokenizer adds {token!r}")


def give_template(template: Template, folder: Path) -> None:
    """Give the tokenizer in a folder a template. InputError where it cannot have this one."""
    tokenizer = load_tokenizer(folder)
    set_template(tokenizer, template)
    _save_tokenizer(tokenizer, folder)
    print(f"template {template.kind}, an answer ends with {tokenizer.eos_token!r}")


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save over what may be links to another folder's files, which must stay as they are."""
    for file in ("special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"):
        (folder / file).unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
