"""Model folders made on the disk: from random weights, from the first layers of another model, as a copy with another tokenizer."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.prompt_templates import Template, set_template


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


def first_layers(source: Path, count: int, output: Path) -> None:
    """Save the first `count` decoder layers of a model, with its embedding, final norm, head and tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto", local_files_only=True)
    base, config = model.base_model, model.config.get_text_config()
    attribute = next((name for name in ("layers", "h") if hasattr(base, name)), None)
    if attribute is None:
        kind = type(model).__name__
        raise InputError(f"{source}: {kind} has its layers in no known place; give a model with `layers`")
    layers = getattr(base, attribute)
    if count > len(layers):
        raise InputError(f"{source}: has {len(layers)} layers, not {count}; ask for fewer")
    setattr(base, attribute, layers[:count])
    config.num_hidden_layers = count
    if getattr(config, "layer_types", None):
        config.layer_types = list(config.layer_types[:count])
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(source, local_files_only=True).save_pretrained(output)
    print(f"first {count} of {len(layers)} layers, {sum(p.numel() for p in model.parameters()):,} parameters")


def copy_model(source: Path, output: Path) -> None:
    """Copy a model's folder with a tokenizer of its own.

    Weights are linked where the file system can, so that a large model does not take its room twice; what is written anew is not.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    output.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.name.startswith(("tokenizer", "chat_template")):
            try:
                os.link(file, output / file.name)
            except OSError:  # another file system, or one without links
                shutil.copy2(file, output / file.name)
    _save_tokenizer(tokenizer, output)


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
