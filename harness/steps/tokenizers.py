"""The tokenizers that steps read: a folder of the user's, one of the small world's, or one that a step has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import ValidationInfo, field_validator

from dskd import hub
from dskd.hub.names import HubName
from dskd.io import read_object
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.prompt_templates import KEY, Template
from dskd.tokenization.tokenizer_files import vocabulary
from harness.runs.hub_lock import HubLock
from harness.runs.identity import BASE_COMMIT, FileHashes, require_tokenizer
from harness.runs.job_context import JobContext
from harness.smallworld.tokenizers import BYTE_LEVEL_SIZE, BYTES_SIZE, SENTENCEPIECE_SIZE
from harness.steps.base import INLINE, NOT_IDENTITY, OMIT_NONE, Input, Of, Step, TokenizerInput, same_as
from harness.steps.create_model import add_bos_token, give_template
from harness.steps.world import World


class FolderInput(Input):
    """A folder of the user's, or one of the hub's cache.

    Attributes:
        files: What its content is known by: sha256 of each of its files, or `hub` and `commit` for one from the hub; with `base/`
            before them, the same of the base of an adapter.
        folder: Where it is on this machine. Of the hub's cache, it is found anew wherever a job runs, and may not be there yet.
    """

    files: dict[str, str]
    folder: Annotated[Path, NOT_IDENTITY]

    @field_validator("folder")
    @classmethod
    def _on_this_machine(cls, folder: Path, info: ValidationInfo) -> Path:
        files = info.data.get("files", {})
        return hub.snapshot_folder(files["hub"], files["commit"]) if "hub" in files else folder

    @property
    def from_hub(self) -> tuple[str, str] | None:
        """Its repository and commit on the hub; None for a folder of the user's."""
        return (self.files["hub"], self.files["commit"]) if "hub" in self.files else None

    @property
    def settings(self) -> Path:
        """The folder, with its configuration and tokenizer there: downloaded where they are missing on this machine."""
        folder = hub.settings(*self.from_hub, weights=False) if self.from_hub else self.folder
        base = hub.base_on_hub(folder) if BASE_COMMIT in self.files else None
        if base is not None:  # who loads the adapter finds the base by its name
            hub.pin(base.repo, base.revision, self.files[BASE_COMMIT])
        return folder


class TokenizerFiles(FolderInput, TokenizerInput):
    """The tokenizer in a folder of the user's or from the hub."""

    def path(self, root: Path) -> Path:
        return self.settings

    @property
    def prompt_template(self) -> Template | None:
        settings = self.settings / "tokenizer_config.json"
        found = read_object(settings).get(KEY) if settings.is_file() else None
        return Template.model_validate(found) if found else None

    @property
    def size(self) -> int | None:
        own = vocabulary(self.settings)
        return None if own is None else own.size


class WorldTokenizer(TokenizerInput):
    """A tokenizer of the small world, by its name."""

    small_world: Of[World]
    name: str

    def path(self, root: Path) -> Path:
        return self.small_world.path(root) / "tokenizers" / self.name

    @property
    def size(self) -> int | None:
        return {"bytelevel": BYTE_LEVEL_SIZE, "sentencepiece": SENTENCEPIECE_SIZE, "bytes": BYTES_SIZE}[self.name]

    @property
    def bytes_per_token(self) -> float | None:
        return 1.0 if self.name == "bytes" else None


class TokenizerChanges(Input):
    """What a matrix changes about a model's tokenizer."""

    add_bos_token: Annotated[bool | None, OMIT_NONE] = None
    template: Annotated[Template | None, OMIT_NONE] = None

    def __bool__(self) -> bool:
        return self.add_bos_token is not None or self.template is not None

    def apply(self, folder: Path) -> None:
        """Change the tokenizer in a folder. InputError where it cannot be changed so."""
        if self.add_bos_token:
            add_bos_token(folder)
        if self.template is not None:
            give_template(self.template, folder)


class ChangedTokenizer(TokenizerInput):
    """The tokenizer that a step has changed. maker: the step in whose product it is."""

    origin: Annotated[Of[TokenizerInput], INLINE]
    changes: Annotated[TokenizerChanges, INLINE]
    maker: Annotated[Of[Step], NOT_IDENTITY]
    vocabulary = same_as("origin")

    def path(self, root: Path) -> Path:
        return self.maker.path(root)

    @property
    def prompt_template(self) -> Template | None:
        return self.changes.template or self.origin.prompt_template

    @property
    def bytes_per_token(self) -> float | None:
        return self.origin.bytes_per_token

    @property
    def made_by(self) -> tuple[Step, ...]:
        return (self.maker,)


class TokenizerCopy(Step):
    """A copy of a tokenizer with changes."""

    kind, version, place, product = "model", 2, "tokenizers", "model"

    origin: Annotated[Of[TokenizerInput], INLINE]
    changes: Annotated[TokenizerChanges, INLINE]

    def run(self, job: JobContext) -> None:
        folder = self.path(job.root)
        load_tokenizer(self.origin.path(job.root)).save_pretrained(folder)
        self.changes.apply(folder)
        job.finish(job.output, report={"stages": []})


def changed_tokenizer(
    name: str, origin: TokenizerInput, template: Template | None, *, add_bos_token: bool = False
) -> TokenizerInput:
    """The tokenizer of a model as a matrix changes it, made by a step of its own; or as it is, where nothing is changed."""
    changes = TokenizerChanges(template=template, add_bos_token=add_bos_token or None)
    if not changes:
        return origin
    maker = TokenizerCopy(title=f"tokenizer of {name}", origin=origin, changes=changes)
    return ChangedTokenizer(origin=origin, changes=changes, maker=maker)


def tokenizer_in_folder(folder: Path | HubName, hashes: FileHashes, lock: HubLock) -> TokenizerFiles:
    """The tokenizer in a folder of the user's, or of a name on the hub.

    Args:
        folder: where it is.
        hashes: of files.
        lock: the commits that the run uses.

    Returns:
        The tokenizer.

    Raises:
        InputError: where there is none, or it cannot be had.
    """
    if isinstance(folder, HubName):
        commit = lock.resolve(folder)
        place, files = hub.settings(folder.repo, commit, weights=False), {"hub": folder.repo, "commit": commit}
        require_tokenizer(place)
    else:
        place, files = folder.resolve(), hashes.tokenizer_folder(folder)
    return TokenizerFiles(folder=place, files=files)
