"""Models as Python has them: a folder, a name, a model with its tokenizer. Training reads folders, so each becomes one."""

from __future__ import annotations

import copy
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd import hub
from dskd.errors import InputError
from dskd.io import read_object
from dskd.modeling.folders import base_of_adapter, require_model_folder
from dskd.modeling.loading import load_tokenizer
from dskd.modeling.lora import is_adapted
from dskd.modeling.saved_settings import valid_settings
from dskd.tokenization.prompt_templates import Template, set_template, template_of
from dskd.training.provenance import Origin, origin_of_path

_ADAPTER = "adapter_config.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Student:
    """A model in memory with its tokenizer. folder: where it is saved; None where it is not."""

    model: Any
    tokenizer: Any
    folder: Path | None = None


def as_folder(given: Any, side: str, work: Path, template: Template | None) -> tuple[Path, Origin]:
    """The folder of a model, and where it came from.

    Args:
        given: A folder, `(model, tokenizer)`, or an object with both (a `Student`, a pipeline).
        side: `teacher` or `student`, for errors.
        work: Where folders are made that are not there.
        template: How the model is asked; by default as its folder says.

    Raises:
        InputError: For what is no model.
    """
    target = work / side
    if isinstance(given, (str, os.PathLike)):
        folder = _named(given, side)
        origin = origin_of_path(folder)
        return (folder if template is None else _with_template(folder, target, template)), origin
    model, tokenizer = _pair(given, side)
    _save(model, tokenizer, side, target)
    if template is not None:
        _give_template(load_tokenizer(target), template, target)
    return target, _origin(model)


def _named(given: str | os.PathLike[str], side: str) -> Path:
    folder = hub.model_folder(Path(given) if isinstance(given, os.PathLike) else given, where=side)
    try:
        require_model_folder(folder)
    except InputError as error:
        raise InputError(f"{side}: {error}") from None
    return folder


def _pair(given: Any, side: str) -> tuple[Any, Any]:
    if isinstance(given, (tuple, list)) and len(given) == 2:
        model, tokenizer = given
    else:
        model, tokenizer = getattr(given, "model", None), getattr(given, "tokenizer", None)
    parts = ((model, "save_pretrained"), (tokenizer, "save_pretrained"), (tokenizer, "convert_ids_to_tokens"))
    if not all(hasattr(part, method) for part, method in parts):
        raise InputError(
            f"{side}: is {_kind(given)}, which is no model; "
            "fix: give a folder, a name on the hub, or (model, tokenizer) of transformers"
        )
    return model, tokenizer


def _kind(given: Any) -> str:
    if isinstance(given, (tuple, list)):
        return f"a {type(given).__name__} of {', '.join(type(part).__name__ for part in given) or 'nothing'}"
    return f"of type {type(given).__name__}"


def _save(model: Any, tokenizer: Any, side: str, folder: Path) -> None:
    """Write a model and its tokenizer; the caller's model stays as it is: an adapter is merged in a copy."""
    whole = copy.deepcopy(model).merge_and_unload() if is_adapted(model) else model
    settings = getattr(whole, "generation_config", None)
    try:
        whole.generation_config = copy.deepcopy(settings)
        valid_settings(whole)
        whole.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    # transformers refuses settings that contradict each other, a quantised model that cannot be written, shared weights.
    except (ValueError, RuntimeError, NotImplementedError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{side}: cannot be saved ({reason}); fix: correct it, or give its folder") from error
    finally:
        whole.generation_config = settings


def _origin(model: Any) -> Origin:
    """Where an object came from, as far as its configuration says it."""
    config = getattr(model, "config", None)
    path = str(getattr(config, "_name_or_path", "") or "")
    if path and Path(path).is_dir():
        return origin_of_path(Path(path))
    if _HUB_ID.fullmatch(path):
        return Origin(name=path, hub=path, revision=getattr(config, "_commit_hash", None))
    return Origin(name=Path(path).name or type(model).__name__, made="an object given from Python")


def _with_template(folder: Path, target: Path, template: Template) -> Path:
    """The folder, if its tokenizer has this template already; else one with links to its files and a tokenizer of its own."""
    tokenizer = load_tokenizer(folder)
    if template_of(tokenizer) == template:
        return folder
    target.mkdir(parents=True)
    for file in folder.iterdir():
        if file.is_file() and not file.name.startswith(
            ("tokenizer", "chat_template", "special_tokens", "added_tokens")
        ):
            (target / file.name).symlink_to(os.path.realpath(file))
    if (base := base_of_adapter(folder)) is not None:  # it may be named as seen from the adapter's folder
        settings = read_object(folder / _ADAPTER) | {"base_model_name_or_path": str(base.resolve())}
        (target / _ADAPTER).unlink()
        (target / _ADAPTER).write_text(json.dumps(settings), encoding="utf-8")
    _give_template(tokenizer, template, target)
    return target


def _give_template(tokenizer: Any, template: Template, folder: Path) -> None:
    set_template(tokenizer, template)
    for file in ("vocab.json", "vocab.txt", "merges.txt"):
        (folder / file).unlink(missing_ok=True)  # links to the user's files, which must stay as they are
    tokenizer.save_pretrained(folder)
