"""Options of teacher outputs: what a cache stores, where a served teacher is, and where a training has a teacher from.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from dskd.options import NOT_IDENTITY, Options
from dskd.teachers.addresses import checked_addresses, checked_variable

# What a teacher can give at the labelled tokens: what enters its head, the k most probable tokens with their log-probabilities, or
# the log-probability of the label alone.
TeacherOutputKind = Literal["hidden_states", "top_k", "text_log_probabilities"]
# The options that each kind of cache has.
_OPTIONS = {
    "hidden_states": {"stored_dtype"},
    "top_k": {"k", "temperature"},
    "text_log_probabilities": set[str](),
}
API_KEY = "DSKD_TEACHER_API_KEY"


_ROUNDING = 1e-6  # of a sum of weights


def wrong_weights(weights: Sequence[float]) -> str | None:
    """What is wrong with the weights of several teachers, and its fix, in a line; None where nothing is."""
    total = sum(weights)
    return f"the weights sum to {total:g}; fix: make them sum to 1" if abs(total - 1) > _ROUNDING else None


class TeacherCacheOptions(Options):
    """What a teacher cache stores. `stored_dtype` is for hidden states; `k` and `temperature` are for top_k."""

    kind: TeacherOutputKind = "hidden_states"
    stored_dtype: Literal["same", "float16", "bfloat16"] = Field(
        "same", description="same: what the teacher computes in, equal to running it live"
    )
    k: int = Field(64, gt=0, description="tokens kept at each position")
    temperature: float = Field(1.0, gt=0, description="divides the logits before the softmax")

    @model_validator(mode="after")
    def _one_dtype_for_log_probabilities(self) -> TeacherCacheOptions:
        if self.kind != "hidden_states" and self.stored_dtype != "same":
            raise ValueError(f"stored_dtype: {self.kind} keeps float32 log probabilities; fix: leave stored_dtype out")
        return self

    def asked(self) -> dict[str, Any]:
        """The options that matter for this kind."""
        return self.model_dump(include={"kind", *_OPTIONS[self.kind]})


class ServedOptions(Options):
    """Where a served teacher is and what it is asked for. Addresses, limits and waiting are no part of an identity."""

    model_config = ConfigDict(hide_input_in_errors=True)  # an address may hold a password

    addresses: Annotated[tuple[str, ...], NOT_IDENTITY] = Field(
        min_length=1, description="http://host:port of the server; several are replicas of one model"
    )
    model: Annotated[str | None, NOT_IDENTITY] = Field(
        None, description="name of the model on the server; by default the only one that it lists"
    )
    kind: TeacherOutputKind = Field(
        "hidden_states",
        description="hidden_states from a server of `vllm serve --runner pooling`; the others from /v1/completions",
    )
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "bfloat16", description="of hidden states on the wire; 2 bytes a number, with float32 4"
    )
    k: int = Field(20, gt=0, description="most probable tokens of top_k; at most the server's --max-logprobs")
    api_key_env: Annotated[str, NOT_IDENTITY] = Field(
        API_KEY, description="environment variable with the API key; it may be unset"
    )
    timeout: Annotated[float, NOT_IDENTITY] = Field(
        300.0, gt=0, allow_inf_nan=False, description="seconds for one request"
    )
    patience: Annotated[float, NOT_IDENTITY] = Field(
        600.0,
        ge=0,
        allow_inf_nan=False,
        description="seconds to wait for a server that is away, before the training ends",
    )
    in_flight: Annotated[int, NOT_IDENTITY] = Field(
        4, gt=0, description="requests at a time at each address; more wait in the training"
    )
    request_tokens: Annotated[int, NOT_IDENTITY] = Field(8192, gt=0, description="tokens of one request, about")
    ahead: Annotated[int, NOT_IDENTITY] = Field(
        1,
        ge=0,
        description="optimizer steps that are asked about while one is computed; the student's own text is never known ahead",
    )
    reference: Annotated[Path | None, NOT_IDENTITY] = Field(
        None, description="answers of a local copy to the probe's texts, which the served teacher must give too"
    )

    @field_validator("addresses")
    @classmethod
    def _of_servers(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        return checked_addresses(addresses)

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, variable: str) -> str:
        return checked_variable(variable)

    def identity(self) -> dict[str, Any]:
        """What can change the outputs: their kind, and what of it is kept."""
        of_kind = {"hidden_states": ("dtype",), "top_k": ("k",), "text_log_probabilities": ()}[self.kind]
        return {"kind": self.kind, **{key: getattr(self, key) for key in of_kind}}


class TeacherSource(Options):
    """Where a training has a teacher from: a model that runs in it, a cache, or a server.

    Attributes:
        name: Of the teacher, where there are several.
        folder: A model folder. With `cache` or `served`, at most its head, configuration and tokenizer are read.
        tokenizer: The folder of the tokenizer, by default `folder`.
        cache: A folder of `build_teacher_cache`.
        served: A server.
        data: A folder of `prepare_dataset` for the student and this teacher, where there are several teachers.
        weight: Of this teacher's loss, where several teach the same examples; None where each has its own examples.
    """

    name: str = "teacher"
    folder: Path
    tokenizer: Path | None = None
    cache: Path | None = None
    served: ServedOptions | None = None
    data: Path | None = None
    weight: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_place(self) -> TeacherSource:
        if self.cache is not None and self.served is not None:
            raise ValueError("cache and served exclude each other; fix: give one")
        return self

    @property
    def is_live(self) -> bool:
        """Whether the model itself runs in the training."""
        return self.cache is None and self.served is None

    @property
    def tokenizer_folder(self) -> Path:
        """The folder of its tokenizer."""
        return self.tokenizer or self.folder
