"""The tokenizers that steps read: a folder of the user's, one of the small world's, or one that a step has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from dskd.io import read_object
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.prompt_templates import KEY, Template
from dskd.tokenization.tokenizer_files import vocabulary
from harness.runs.job_context import JobContext
from harness.smallworld.tokenizers import BYTE_LEVEL_SIZE, SENTENCEPIECE_SIZE
from harness.steps.base import INLINE, NOT_IDENTITY, OMIT_NONE, Input, Of, Step, TokenizerInput, same_as
from harness.steps.create_model import add_bos_token, give_template
from harness.steps.world import World


class TokenizerFiles(TokenizerInput):
    """The tokenizer in a folder of the user's. files: sha256 of each of its files."""

    folder: Annotated[Path, NOT_IDENTITY]
    files: dict[str, str]

    def path(self, root: Path) -> Path:
        return self.folder

    @property
    def prompt_template(self) -> Template | None:
        settings = self.folder / "tokenizer_config.json"
        found = read_object(settings).get(KEY) if settings.is_file() else None
        return Template.model_validate(found) if found else None

    @property
    def size(self) -> int | None:
        own = vocabulary(self.folder)
        return None if own is None else own.size


class WorldTokenizer(TokenizerInput):
    """A tokenizer of the small world, by its name."""

    small_world: Of[World]
    name: str

    def path(self, root: Path) -> Path:
        return self.small_world.path(root) / "tokenizers" / self.name

    @property
    def size(self) -> int | None:
        return {"bytelevel": BYTE_LEVEL_SIZE, "sentencepiece": SENTENCEPIECE_SIZE}[self.name]


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
