"""Code that comes with a model: transformers would import it to load the model. It runs only where it was asked for by name and commit.

`DSKD_TRUST_REMOTE_CODE="org/name@<commit>,…"` names what may run. For a folder that is not in the hub's cache its absolute path stands
there. A folder that a trusted model was saved into holds the same files, byte for byte, and is trusted for that.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.hub.cache import snapshot_folder, snapshot_of
from dskd.hub.names import HubName, is_commit
from dskd.io import read_object

TRUSTED = "DSKD_TRUST_REMOTE_CODE"


def is_trusted(repo: str, commit: str) -> bool:
    """Whether code of this commit may run."""
    return str(HubName(repo, commit)) in _trusted()


def trusts_code(folder: Path) -> bool:
    """Whether the Python files in a folder may run: it is named, or its files are those of one that is."""
    own = _own_code(folder)
    for each in _trusted():
        place = _place(each)
        if place is None:
            continue
        if place in (folder.absolute(), folder.resolve()):
            return True
        theirs = _own_code(place)
        if own and all(theirs.get(name) == code for name, code in own.items()):
            return True
    return False


def refuse_remote_code(folder: Path) -> None:
    """Check that loading the model in a folder runs no code of its own, unless that is trusted.

    Args:
        folder: of a model; where it holds no configuration there is nothing to check.

    Raises:
        InputError: naming what would run, and how to allow it.
    """
    references = _foreign_classes(folder)
    if not references:
        return
    name = snapshot_of(folder)
    elsewhere = {each.split("--")[0] for each in references if "--" in each} - {name.repo if name else ""}
    if elsewhere:
        raise InputError(
            f"{folder}: loading it would run code of another repository, {min(elsewhere)}, at no certain revision; fix: use a "
            "model that transformers knows"
        )
    if not trusts_code(folder):
        files = ", ".join(sorted({f"{each.split('--')[-1].rpartition('.')[0]}.py" for each in references}))
        raise InputError(
            f"{folder}: is of a kind that transformers does not know, and loading it would run {files} from it; fix: read that "
            f"code, then set {TRUSTED}={name or folder.absolute()}, or use another model"
        )


def code_arguments(folder: Path) -> dict[str, bool]:
    """What `from_pretrained` of transformers is told about a folder's code: to run it where it is trusted, and else not to ask.

    Raises:
        InputError: where it would have to run code that is not trusted.
    """
    refuse_remote_code(folder)
    return {"trust_remote_code": bool(_foreign_classes(folder))}


def _foreign_classes(folder: Path) -> list[str]:
    """The classes, as `module.Class`, that only the folder's own code has; none where transformers knows the kind of model."""
    files = ["config.json"]
    if not (folder / "tokenizer.json").is_file():  # which is read without any code
        files.append("tokenizer_config.json")
    found = [
        each
        for name in files
        if (folder / name).is_file()
        for each in _references(read_object(folder / name).get("auto_map"))
    ]
    return found if found and not _is_known(folder) else []


def _references(auto_map: Any) -> list[str]:
    values = auto_map.values() if isinstance(auto_map, dict) else [auto_map]
    flat = [each for value in values for each in (value if isinstance(value, list) else [value])]
    return [each for each in flat if isinstance(each, str)]


def _is_known(folder: Path) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    config = folder / "config.json"
    return config.is_file() and read_object(config).get("model_type") in CONFIG_MAPPING_NAMES


def _trusted() -> list[str]:
    return [each.strip() for each in os.environ.get(TRUSTED, "").split(",") if each.strip()]


def _place(trusted: str) -> Path | None:
    """The folder that a trusted name stands for on this machine; None for what names no commit."""
    if Path(trusted).is_absolute():
        return Path(trusted)
    repo, _, commit = trusted.partition("@")
    return snapshot_folder(repo, commit) if is_commit(commit) else None


def _own_code(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.py"))} if folder.is_dir() else {}
