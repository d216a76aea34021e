"""The training data and the models of a matrix, as pydantic models. The key that only one kind has says which kind is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from dskd.data.hub_rows import HubData
from dskd.data.options import DataOptions
from dskd.hub.names import HubName, name_in, parse
from harness.config.served import ServedSource, TeachersSource
from harness.config.strict import Name, PromptTemplate, Strict
from harness.protocols import Seed

SmallTokenizer = Literal["bytelevel", "sentencepiece", "bytes"]


# --- training data --------------------------------------------------------------------------------------------------------------


class SmallWorldData(Strict):
    """One of the training sets that the small world generates."""

    small_world: Literal["teacher", "student", "pretraining", "clean", "prompts"]
    limit: int | None = Field(default=None, ge=1)


class FileData(DataOptions, Strict):
    """A file of the user's, or a folder of files, in any form and shape of docs/data-sources.md.

    The other keys say how its rows are read where they do not say so themselves: `prompt: "Question: {question}\\nAnswer:"`.
    """

    file: str
    limit: int | None = Field(default=None, ge=1)


class HubDataset(DataOptions, Strict):
    """A split of a data set on the hub. Its revision (a branch, a tag or a commit) is resolved once.

    The other keys are those of a file.
    """

    hub: str
    split: str = Field(default="train", min_length=1)
    config: str | None = Field(default=None, min_length=1)
    revision: str | None = None
    limit: int | None = Field(default=None, ge=1)

    @property
    def named(self) -> HubData:
        """The split, by its name on the hub."""
        name = name_in(self.hub)
        assert name is not None
        name = name if self.revision is None else HubName(name.repo, self.revision)
        return HubData(name, self.config, self.split)

    @field_validator("hub")
    @classmethod
    def _is_a_name(cls, hub: str) -> str:
        if name_in(hub) is None:
            raise ValueError(f"{hub!r} is no name on the hub; fix: write org/name, or `file` for a file or folder")
        return hub

    @model_validator(mode="after")
    def _one_revision(self) -> HubDataset:
        if self.revision is not None and "@" in self.hub:
            raise ValueError("the revision is given twice; fix: leave out `revision`, or what is after the @")
        return self


DATA_KINDS: dict[str, type[Strict]] = {"small_world": SmallWorldData, "file": FileData, "hub": HubDataset}


# --- models ---------------------------------------------------------------------------------------------------------------------


class TokenizerSource(Strict):
    """Where a new model's tokenizer comes from: the small world, a folder, or a name on the hub (`path: org/name[@revision]`)."""

    small_world: SmallTokenizer | None = None
    path: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> TokenizerSource:
        if (self.small_world is None) == (self.path is None):
            raise ValueError("is no tokenizer, or two; fix: give one of small_world, path")
        return self


class Training(Strict):
    """A training set by name, and beside it the training options (`dskd.training.options.TrainingOptions`)."""

    known_keys = ("data",)

    data: Name
    options: dict[str, Any] = Field(default_factory=dict)


class FinishedModel(Strict):
    """A model that is there already, in a folder or on the hub.

    Attributes:
        add_bos_token: Use a copy whose tokenizer adds the begin-of-sequence token, for a model that was pretrained with one but whose
            folder does not add it, for example after a conversion.
        template: The prompt template in training and evaluation: `alpaca`, `chat` (the tokenizer's own), or
            `{kind: chat, system: "…"}`.
    """

    training: ClassVar[Sequence[Training]] = ()
    key: ClassVar[str]  # which says where it is

    add_bos_token: bool = False
    template: PromptTemplate | None = None

    @property
    def place(self) -> Path | HubName:
        """Its folder, or its name on the hub."""
        raise NotImplementedError

    @property
    def published(self) -> Path:
        """The path by which its shape may be known although it is not here: one that ends with its name on the hub."""
        return Path(self.place.repo) if isinstance(self.place, HubName) else self.place


class PathModel(FinishedModel):
    """A model folder; or `org/name[@revision]` on the hub, where there is no folder of that path."""

    key: ClassVar[str] = "path"

    path: str

    @property
    def place(self) -> Path | HubName:
        return parse(self.path) or Path(self.path)


class HubModel(FinishedModel):
    """A model on the hub. Its revision (a branch, a tag or a commit) is resolved once and locked in the run's folder."""

    key: ClassVar[str] = "hub"

    hub: str
    revision: str | None = None

    @property
    def place(self) -> Path | HubName:
        name = name_in(self.hub)
        assert name is not None
        return name if self.revision is None else HubName(name.repo, self.revision)

    @field_validator("hub")
    @classmethod
    def _is_a_name(cls, hub: str) -> str:
        if name_in(hub) is None:
            raise ValueError(f"{hub!r} is no name on the hub; fix: write org/name, or `path` for a folder")
        return hub

    @model_validator(mode="after")
    def _one_revision(self) -> HubModel:
        if self.revision is not None and "@" in self.hub:
            raise ValueError("the revision is given twice; fix: leave out `revision`, or what is after the @")
        return self


class NewModel(Strict):
    """A model with random weights. Its vocabulary size and special ids come from the tokenizer."""

    template: PromptTemplate | None = None
    config: dict[str, Any]
    tokenizer: TokenizerSource
    seed: Seed
    training: list[Training] = Field(default_factory=list)

    @field_validator("config")
    @classmethod
    def _has_model_type(cls, config: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(config.get("model_type"), str):
            raise ValueError("has no `model_type`; fix: add it, for example llama or gpt2")
        return config


class FirstLayersModel(Strict):
    """The first layers of another model of this matrix, with its embedding, final norm and head."""

    layers_of: Name
    layers: int = Field(ge=1)
    seed: Seed = 0
    training: list[Training] = Field(default_factory=list)


class StepModel(Strict):
    """A model that a step of the user's makes: `step: path/to/file.py:Class`, and beside it the fields of that class."""

    known_keys = ("step",)
    training: ClassVar[Sequence[Training]] = ()

    step: str
    options: dict[str, Any] = Field(default_factory=dict)


MODEL_KINDS: dict[str, type[Strict]] = {
    "path": PathModel,
    "hub": HubModel,
    "config": NewModel,
    "layers_of": FirstLayersModel,
    "step": StepModel,
    "served": ServedSource,
    "completions": ServedSource,
    "chat": ServedSource,
    "teachers": TeachersSource,
}


def _kind_by_key(kinds: Mapping[str, type[Strict]]) -> Discriminator:
    """Choose the member of a union by the key that only it has, so that errors are about that member alone."""

    def choose(value: Any) -> str | None:
        if isinstance(value, Mapping):
            return next((key for key in kinds if key in value), None)
        return next((key for key, kind in kinds.items() if isinstance(value, kind)), None)

    return Discriminator(
        choose,
        custom_error_type="needs_one_of",
        custom_error_message=f"is of no known kind; fix: give one of the keys {', '.join(kinds)}",
    )


DataSource = Annotated[
    Annotated[SmallWorldData, Tag("small_world")]
    | Annotated[FileData, Tag("file")]
    | Annotated[HubDataset, Tag("hub")],
    _kind_by_key(DATA_KINDS),
]
ModelSource = Annotated[
    Annotated[PathModel, Tag("path")]
    | Annotated[HubModel, Tag("hub")]
    | Annotated[NewModel, Tag("config")]
    | Annotated[FirstLayersModel, Tag("layers_of")]
    | Annotated[StepModel, Tag("step")]
    | Annotated[ServedSource, Tag("served")]
    | Annotated[ServedSource, Tag("completions")]
    | Annotated[ServedSource, Tag("chat")]
    | Annotated[TeachersSource, Tag("teachers")],
    _kind_by_key(MODEL_KINDS),
]
