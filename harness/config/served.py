"""Teachers of a matrix that do not run in a training: behind an address, or several together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from dskd.errors import InputError
from dskd.hub.names import HubName, parse
from dskd.teachers.addresses import checked_addresses, checked_variable
from dskd.teachers.options import API_KEY, wrong_weights
from harness.config.strict import Name, PromptTemplate, Strict
from harness.costs.token_price import TokenPrice


def _several(value: Any) -> Any:
    several = [value] if isinstance(value, str) else value
    if not isinstance(several, list | tuple):
        raise ValueError("is no address and no list of addresses; fix: give it as http://127.0.0.1:8000")
    return several


# One address, or several that are replicas of one model.
Addresses = Annotated[tuple[str, ...], BeforeValidator(_several)]


class ServedSource(Strict):
    """A teacher that a server runs. It has at least one of `served`, `completions` and `chat`.

    Attributes:
        served: Address of a server that gives hidden states, `vllm serve` with the options of `harness teacher serve-command`;
            several are replicas.
        completions: Of one with /v1/completions: top-k and text log-probabilities, and the responses that seqkd learns from.
        chat: Of one with /v1/chat/completions: responses alone.
        model: Its name on the server; by default the only one that the server lists.
        head: Folder, or name on the hub, of which configuration, tokenizer and output head are read, and no layer.
        tokenizer: Folder, or name on the hub, of the tokenizer; by default that of `head`.
        dtype: Of the hidden states on the wire.
        local_copy: Whether the states are compared with those of the model in `head`, where all its weights are there. Not for a
            server that quantises it.
        api_key_env: Environment variable with the API key; it may be unset.
        timeout: Seconds for one request.
        patience: Seconds to wait for a server that is away, before a training ends.
        in_flight: Requests at a time at each address.
        request_tokens: Tokens of one request, about.
        price: What a million tokens of `prompt` and of `completion` cost, for the record of responses.
        samples: Responses to each prompt.
        parameters: Further parameters of requests for responses, such as top_p.
        template, add_bos_token: As of a model in a folder.
    """

    training: ClassVar[Sequence[Any]] = ()

    served: Addresses = ()
    completions: Addresses = ()
    chat: Addresses = ()
    model: str | None = Field(default=None, min_length=1)
    head: str | None = None
    tokenizer: str | None = None
    dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
    local_copy: bool = True
    api_key_env: str = API_KEY
    timeout: float = Field(default=300.0, gt=0, allow_inf_nan=False)
    patience: float = Field(default=600.0, ge=0, allow_inf_nan=False)
    in_flight: int = Field(default=4, ge=1)
    request_tokens: int = Field(default=8192, ge=1)
    price: TokenPrice | None = None
    samples: int = Field(default=1, ge=1)
    parameters: dict[str, Any] = Field(default_factory=dict)
    template: PromptTemplate | None = None
    add_bos_token: bool = False

    @field_validator("served", "completions", "chat")
    @classmethod
    def _are_addresses(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        try:  # what OpenAI's clients call a base URL ends with /v1
            return checked_addresses(tuple(address.rstrip("/").removesuffix("/v1") for address in addresses))
        except InputError as error:
            raise ValueError(str(error).removeprefix("addresses:").strip()) from None

    @field_validator("api_key_env", mode="before")
    @classmethod
    def _is_a_name(cls, variable: Any) -> str:
        try:
            return checked_variable(variable)
        except InputError as error:
            raise ValueError(str(error).removeprefix("api_key_env:").strip()) from None

    @model_validator(mode="after")
    def _has_what_its_servers_need(self) -> ServedSource:
        if not (self.served or self.completions or self.chat):
            raise ValueError("has no address; fix: give one of served, completions, chat")
        if self.served and self.head is None:
            raise ValueError(
                "`served` gives hidden states, which need the output head; fix: give `head`, the model's folder or name on the hub"
            )
        if self.completions and not self.served and self.head is None and self.tokenizer is None:
            raise ValueError("`completions` is asked in tokens; fix: give `tokenizer`, a folder or a name on the hub")
        return self

    @model_validator(mode="after")
    def _every_key_means_something(self) -> ServedSource:
        writes, teaches = bool(self.chat or self.completions), bool(self.served or self.completions)
        for keys, means, needs in (
            ({"samples", "parameters", "price"}, writes, "`completions` or `chat`, which write responses"),
            ({"dtype", "local_copy"}, bool(self.served), "`served`, which gives hidden states"),
            ({"patience", "request_tokens"}, teaches, "`served` or `completions`"),
        ):
            if not means and (given := sorted(keys & self.model_fields_set)):
                raise ValueError(f"`{given[0]}` means nothing without {needs}; fix: leave it out")
        return self

    @property
    def head_place(self) -> Path | HubName | None:
        """Where configuration and head are read from."""
        return None if self.head is None else parse(self.head) or Path(self.head)

    @property
    def tokenizer_place(self) -> Path | HubName | None:
        """Where the tokenizer is read from; None for a teacher that gives text alone."""
        return self.head_place if self.tokenizer is None else parse(self.tokenizer) or Path(self.tokenizer)


# What a teacher's loss is multiplied by.
Weight = Annotated[float, Field(gt=0, le=1)]


class TeachersSource(Strict):
    """Several models as one teacher.

    Attributes:
        teachers: Their names, each with its own examples; or with weights, `{big: 0.7, small: 0.3}`: all teach every example.
        route: The column of the data that names an example's teacher.
    """

    training: ClassVar[Sequence[Any]] = ()

    teachers: Annotated[list[Name], Tag("[names]")] | Annotated[dict[Name, Weight], Tag("[weights]")] = Field(
        discriminator=Discriminator(lambda given: "[weights]" if isinstance(given, Mapping) else "[names]")
    )
    route: str | None = Field(default=None, min_length=1)

    @field_validator("teachers", mode="before")
    @classmethod
    def _are_several(cls, given: Any) -> Any:
        if not isinstance(given, Mapping | list):
            raise ValueError(
                "is neither a list of models nor models with weights; fix: give [a, b], or {a: 0.7, b: 0.3}"
            )
        if len(given) < 2:
            raise ValueError("has fewer than two teachers; fix: name one teacher in the pair itself")
        return given

    @model_validator(mode="after")
    def _weights_or_a_route(self) -> TeachersSource:
        weighted = isinstance(self.teachers, Mapping)
        if weighted and self.route is not None:
            raise ValueError("has weights and a route; fix: leave one out")
        if not weighted and self.route is None:
            raise ValueError(
                "does not say which teacher teaches what; fix: give `route`, a column of the data, or weights as teachers: {a: 0.5, b: 0.5}"
            )
        if len(set(self.teachers)) != len(self.teachers):
            raise ValueError("a teacher is given twice; fix: give each once")
        if weighted and (problem := wrong_weights([*self.weights.values()])):
            raise ValueError(problem)
        return self

    @property
    def names(self) -> list[str]:
        """The names of the models."""
        return list(self.teachers)

    @property
    def weights(self) -> dict[str, float]:
        """By name; empty where each teacher has its own examples."""
        return dict(self.teachers) if isinstance(self.teachers, Mapping) else {}
