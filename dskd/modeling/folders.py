"""What a model folder holds, found without torch: configuration, tokenizer, generation settings, and the base of an adapter.

A folder of an adapter (LoRA, by peft) holds a part of a model alone. What it lacks is its base model's: `parts_of` says where
each part lies, so that every command finds the same. `require_model_folder` also reads enough of the files to refuse a folder
that transformers could not load, or would load as something else (docs/model-folders.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd import hub
from dskd.errors import InputError
from dskd.io import read_object
from dskd.modeling.weight_files import ADAPTER_CONFIG, check_weights, require_content, weight_files

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
# Named chat templates beside the one in chat_template.jinja.
CHAT_TEMPLATES = "additional_chat_templates"
# A folder with one of these has a tokenizer of its own; the other files only say more about it.
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model", "*.tiktoken")
_OF_TOKENIZER = (
    *_VOCABULARIES,
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "chat_template.jinja"),
    f"{CHAT_TEMPLATES}/*.jinja",
)
_SETTINGS = (CONFIG, GENERATION_CONFIG, ADAPTER_CONFIG, "tokenizer_config.json")


@dataclass(frozen=True)
class ModelParts:
    """Where the parts of a model lie.

    Attributes:
        folder: What the user gave.
        model: The folder of configuration and weights: an adapter's base model.
        tokenizer: The folder of the tokenizer.
        generation_config: The file of generation settings, None where there is none.
    """

    folder: Path
    model: Path
    tokenizer: Path
    generation_config: Path | None

    @property
    def is_adapter(self) -> bool:
        """Whether the folder holds an adapter of another model."""
        return self.model != self.folder

    @property
    def config(self) -> Path:
        """The file of the model's configuration."""
        return self.model / CONFIG


def parts_of(folder: Path) -> ModelParts:
    """Where the parts of the model in a folder lie. InputError for an adapter whose base model is not there."""
    base = base_of_adapter(folder)
    if base is None:
        return ModelParts(folder, folder, folder, _file(folder / GENERATION_CONFIG))
    settings = _file(folder / GENERATION_CONFIG) or _file(base / GENERATION_CONFIG)
    return ModelParts(folder, base, tokenizer_folder(folder), settings)


def tokenizer_folder(folder: Path) -> Path:
    """The folder of the tokenizer of the model in a folder: an adapter without one has its base model's.

    InputError for an adapter with neither tokenizer nor base model.
    """
    return folder if _has(folder, _VOCABULARIES) else base_of_adapter(folder) or folder


def tokenizer_files(folder: Path) -> list[Path]:
    """The files that make the tokenizer in a folder, sorted by name."""
    return sorted({path for pattern in _OF_TOKENIZER for path in folder.glob(pattern)})


def require_model_folder(folder: Path) -> None:
    """Raise InputError unless `folder` is a model folder, or one of an adapter whose base model is there.

    Looks at the files as `check_files` does; nothing of the weights but their headers is read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such model folder; fix: give the path of a folder with config.json and weights")
    if base_of_adapter(folder) is None and not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: no config.json in the model folder; fix: give a folder saved with save_pretrained")
    check_files(folder)


def check_content(folder: Path) -> None:
    """InputError for a file of a model folder, or of its base model's, that is a pointer of git-lfs, and for missing shards."""
    parts = parts_of(folder)
    for place in dict.fromkeys((parts.folder, parts.model)):
        settings = (place / name for name in _SETTINGS)
        for file in (*filter(Path.is_file, settings), *weight_files(place)):
            require_content(file)


def check_files(folder: Path) -> None:
    """InputError for a file of a model folder, its tokenizer's or its base model's that is not what its name says.

    What `check_content` finds, settings that are no JSON, weights that were cut off, and weights that do not fit the
    configuration: rows of the embedding, number of layers, names that another program has prefixed.
    """
    check_content(folder)
    parts = parts_of(folder)
    check_tokenizer_files(parts.tokenizer)
    for place in dict.fromkeys((parts.folder, parts.model, parts.tokenizer)):
        for file in filter(Path.is_file, (place / name for name in _SETTINGS)):
            read_object(file)
    if parts.is_adapter:
        check_weights(folder, None)
    check_weights(parts.model, text_config(read_object(parts.config)))


def check_tokenizer_files(folder: Path) -> None:
    """InputError for a tokenizer's file that is a pointer of git-lfs."""
    for file in tokenizer_files(folder):
        require_content(file)


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a model's language part: what `text_config` says comes before what the whole says."""
    nested = config.get("text_config")
    return {**config, **nested} if isinstance(nested, dict) else config


def is_quantised(folder: Path) -> bool:
    """Whether the weights in a folder are quantised, as far as its configuration says."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # transformers says what is wrong with it
    return isinstance(config, dict) and bool(config.get("quantization_config"))


def base_of_adapter(folder: Path) -> Path | None:
    """The folder of the model that the adapter (LoRA) in `folder` belongs to; None where it holds a model of its own.

    Of a base that is a name on the hub, the folder in the hub's cache: its settings are there, its weights perhaps not yet.
    InputError where the base model is not named, is not there, or is quantised.
    """
    settings = folder / ADAPTER_CONFIG
    if not settings.is_file():
        return None
    require_content(settings)
    if (on_hub := hub.base_on_hub(folder)) is not None:
        try:
            return _plain(settings, hub.settings(on_hub.repo, hub.resolve(on_hub.repo, on_hub.revision)), str(on_hub))
        except InputError as error:
            fix = "or set base_model_name_or_path to its folder"
            raise InputError(f"{settings}: its base model {error}, {fix}") from None
    try:
        name = json.loads(settings.read_text(encoding="utf-8"))["base_model_name_or_path"]
        base = _base_folder(folder, name)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{settings}: names no base_model_name_or_path; fix: set it to the base model's folder"
        ) from error
    if not (base / CONFIG).is_file():
        raise InputError(
            f"{settings}: the base model '{name}' is not here; "
            "fix: set base_model_name_or_path to its folder (absolute, or from the adapter's folder)"
        )
    return _plain(settings, base, name)


def _plain(settings: Path, base: Path, name: str) -> Path:
    """The folder of an adapter's base model. InputError where it is quantised."""
    if is_quantised(base):
        raise InputError(
            f"{settings}: the base model '{name}' is quantised, so the adapter cannot be merged exactly; "
            "fix: set base_model_name_or_path to the model that is not"
        )
    return base


def _base_folder(folder: Path, name: str) -> Path:
    """The folder that an adapter calls its base: an absolute path stays as it is. TypeError for what is no text."""
    return folder / name


def _file(path: Path) -> Path | None:
    return path if path.is_file() else None


def _has(folder: Path, patterns: Iterable[str]) -> bool:
    return any(True for pattern in patterns for _ in folder.glob(pattern))
