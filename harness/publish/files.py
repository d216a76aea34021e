"""The files of a student that are published: what loads it, what it was made of, and its card. Everything else stays here.

Checkpoints, the trainer's state, logs and projectors are not among them. Settings that hold paths of this machine are written anew.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from dskd.errors import InputError
from dskd.io import read_object
from dskd.modeling.lora import ADAPTER
from dskd.training.checkpoints import REPORT
from dskd.training.provenance import FILE as PROVENANCE
from dskd.training.provenance import Provenance

CARD = "README.md"
_PUBLISHED = (
    *("config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json"),
    *(
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
    ),
    *("merges.txt", "tokenizer.model", "spiece.model", "chat_template.jinja", "additional_chat_templates/*.jinja"),
    *(f"{ADAPTER}/adapter_config.json", f"{ADAPTER}/adapter_model*.safetensors"),
    *("LICENSE*", "NOTICE*", REPORT, PROVENANCE),
)
# What transformers keeps of the loading itself: true of a folder here, and wrong for who loads it by name.
_OF_THIS_MACHINE = ("is_local", "local_files_only", "name_or_path", "_name_or_path", "cache_dir", "token")
_BASE = "base_model_name_or_path"


def published_files(folder: Path) -> dict[str, Path]:
    """The files that are published as they are named on the hub. InputError where the weights are not all there."""
    found = {
        path.relative_to(folder).as_posix(): path
        for pattern in _PUBLISHED
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }
    if not any(re.fullmatch(r"model.*\.safetensors", name) for name in found):
        raise InputError(f"{folder}: has no weights (model.safetensors); fix: give the folder of a finished training")
    index = found.get("model.safetensors.index.json")
    shards = set(read_object(index).get("weight_map", {}).values()) if index else set()
    if missing := sorted(shards - found.keys()):
        raise InputError(f"{folder}: {missing[0]} of its weights is missing; fix: give a whole folder")
    return found


def stage(folder: Path, card: str, made: Provenance, target: Path) -> dict[str, int]:
    """Put what is published into a new folder: weights as links, settings without what belongs to this machine.

    Args:
        folder: The student's.
        card: The text of README.md.
        made: What it was made of; names the base of an adapter.
        target: The new folder.

    Returns:
        The size of each file in bytes.
    """
    for name, path in published_files(folder).items():
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        settings = _SETTINGS.get(PurePosixPath(name).name)
        if settings is None:
            place.symlink_to(os.path.realpath(path))
            continue
        changed = settings(read_object(path), made)
        place.write_text(json.dumps(changed, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (target / CARD).write_text(card, encoding="utf-8")
    return {
        path.relative_to(target).as_posix(): path.stat().st_size for path in sorted(target.rglob("*")) if path.is_file()
    }


def _plain(settings: dict[str, Any], _made: Provenance) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _OF_THIS_MACHINE}


def _report(report: dict[str, Any], _made: Provenance) -> dict[str, Any]:
    """Without what was found out about a served teacher: addresses of the own network are in it."""
    return {**report, "probe": None}


def _adapter(settings: dict[str, Any], made: Provenance) -> dict[str, Any]:
    """The adapter's base by its name on the hub; a folder of this machine says nothing elsewhere."""
    base = made.student
    named = {_BASE: base.hub or base.name, "revision": base.revision if base.hub else None}
    return {**_plain(settings, made), **named}


_SETTINGS: Mapping[str, Any] = {
    "config.json": _plain, "generation_config.json": _plain, "tokenizer_config.json": _plain,
    "adapter_config.json": _adapter, REPORT: _report,
}  # fmt: skip
