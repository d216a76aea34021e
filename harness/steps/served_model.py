"""A teacher behind an address as an input of steps: what is known of it here is its tokenizer, and of one that gives hidden states its head."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import dskd
from dskd import hub
from dskd.compatibility import LIVE, SERVED_TEMPERATURE
from dskd.errors import InputError
from dskd.hub.names import HubName
from dskd.io import read_object
from dskd.modeling.folders import text_config
from dskd.teachers.options import ServedOptions
from harness.costs.model_shapes import Shape, shape_of
from harness.runs.hub_lock import HubLock
from harness.runs.identity import FileHashes
from harness.steps.base import NOT_IDENTITY, OMIT_NONE, ModelInput, Of, TokenizerInput, TrainingSource
from harness.steps.tokenizers import FolderInput

# The addresses that give each kind of outputs.
ADDRESS_OF = {"hidden_states": "served", "top_k": "completions", "text_log_probabilities": "completions"}


class HeadFolder(FolderInput):
    """A folder, or a name on the hub, of which the configuration and the output head are read, and perhaps the input embedding."""

    def path(self, root: Path) -> Path:
        """Where they are; from the hub, the shards with them are downloaded and no others."""
        return dskd.head_folder("@".join(self.from_hub), embedding=True) if self.from_hub else self.folder


class ServedModel(ModelInput):
    """A teacher that a server runs.

    Attributes:
        addresses: By kind, `served`, `completions`, `chat`: where the server is cannot change what it says.
        model: Its name on the server.
        head: Of what its hidden states enter; None for one that gives none.
        tokenizer: None for one that gives text alone.
        dtype: Of hidden states on the wire.
        local_copy: Whether it is compared with the model in the head's folder.
        reach: How it is reached: api_key_env, timeout, patience, in_flight, request_tokens.
    """

    addresses: Annotated[dict[str, tuple[str, ...]], NOT_IDENTITY]
    model: str | None
    head: Annotated[Of[HeadFolder] | None, OMIT_NONE] = None
    tokenizer: Annotated[Of[TokenizerInput] | None, OMIT_NONE] = None
    dtype: str
    local_copy: Annotated[bool, NOT_IDENTITY] = True
    reach: Annotated[dict[str, Any], NOT_IDENTITY]

    def path(self, root: Path) -> Path:
        """The folder of its head, or of its tokenizer."""
        if self.head is not None:
            return self.head.path(root)
        return self.tokenizer_input.path(root)

    @property
    def tokenizer_input(self) -> TokenizerInput:
        if self.tokenizer is None:
            raise InputError(
                f"models.{self.name}: gives text alone, as its tokenizer is not known; fix: give `served` and `head`, or "
                "`completions` and `tokenizer`, or use sft and seqkd alone"
            )
        return self.tokenizer

    @property
    def prompt_template(self) -> Any:
        return None if self.tokenizer is None else self.tokenizer.prompt_template

    @cached_property
    def text_config(self) -> dict[str, Any]:
        return {} if self.head is None else text_config(read_object(self.head.settings / "config.json"))

    @cached_property
    def shape(self) -> Shape:
        return shape_of(self.text_config) or super().shape

    @property
    def lineage(self) -> list[TrainingSource]:
        return [
            TrainingSource(None, reason=f"{self.name} is behind an address: what it was trained on is not known here")
        ]

    def served(self, outputs: Mapping[str, Any]) -> ServedOptions:
        """How it is asked for teacher outputs, `{kind: live}` and the like, at every step. InputError where no address gives them."""
        kind = "hidden_states" if outputs["kind"] == LIVE else outputs["kind"]
        key = ADDRESS_OF[kind]
        if not (addresses := self.addresses.get(key)):
            raise InputError(
                f"models.{self.name}: has no address for {kind}; fix: give `{key}`, or other teacher_outputs"
            )
        more = {"k": outputs["k"]} if "k" in outputs else {}
        asked = {"addresses": addresses, "model": self.model, "kind": kind, "dtype": self.dtype}
        return ServedOptions.model_validate(asked | more | self.reach)

    def served_for_cache(self, outputs: Mapping[str, Any]) -> ServedOptions:
        """How it is asked once, for a cache of teacher outputs: for hidden states where it gives them, as all outputs are made of these.

        InputError where no address gives them, or not at the temperature that is asked for.
        """
        if ADDRESS_OF["hidden_states"] in self.addresses:
            return self.served({"kind": LIVE})
        if outputs.get("temperature", SERVED_TEMPERATURE) != SERVED_TEMPERATURE:
            raise InputError(
                f"models.{self.name}: `completions` gives distributions at temperature {SERVED_TEMPERATURE:g} alone; fix: "
                f"teacher_outputs: {{kind: top_k, temperature: {SERVED_TEMPERATURE:g}}}, or give `served` and `head`"
            )
        return self.served(outputs)


def head_folder(place: Path | HubName, hashes: FileHashes, lock: HubLock) -> HeadFolder:
    """The place of a head. InputError where there is no configuration, or it cannot be had."""
    if isinstance(place, HubName):
        commit = lock.resolve(place)
        folder, files = hub.settings(place.repo, commit), {"hub": place.repo, "commit": commit}
    else:
        folder, files = place.resolve(), hashes.head_folder(place)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{place}: has no config.json; fix: give the folder of the teacher, at least its settings and head"
        )
    return HeadFolder(folder=folder, files=files)
