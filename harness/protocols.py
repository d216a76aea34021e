"""Decoding protocols: named presets of how answers are drawn. Scores of unequal protocols are different measurements.

A new preset is one entry of `PROTOCOLS`; docs/protocols.md says where each comes from and what it may be compared with.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dskd.errors import InputError
from dskd.options import MAX_SEED

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class DecodingProtocol(BaseModel):
    """How each prompt is answered. The defaults are greedy decoding within the task's own limits."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    name: str = Field(pattern=r"^[A-Za-z0-9@._-]{1,40}$")
    temperature: float = Field(default=0.0, ge=0.0, description="0 takes the most probable token")
    top_p: float = Field(
        default=1.0, gt=0.0, le=1.0, description="draw from the fewest tokens that hold so much; 1 is off"
    )
    top_k: int = Field(default=0, ge=0, description="draw from so many most probable tokens; 0 is off")
    seeds: tuple[Seed, ...] | None = Field(
        default=None, min_length=1, description="each answers every prompt; null: the one seed of `evaluation`"
    )
    samples: int = Field(default=1, ge=1, description="answers to a prompt of each seed")
    max_new_tokens: int | None = Field(default=None, ge=1, description="null: the task's own")
    # Left out where it is not set, so that records and identities of models that do not reason stay as they are.
    max_reasoning_tokens: int | None = Field(
        default=None,
        ge=1,
        exclude_if=lambda value: value is None,
        description="of a model that reasons, before the max_new_tokens of its answer; null: one limit for both",
    )
    reasoning_end: Literal["cut", "close"] = Field(
        default="cut",
        exclude_if=lambda value: value == "cut",
        description="reasoning at its limit: no answer, or closed so that the model answers",
    )
    max_prompt_tokens: int | None = Field(default=None, ge=1, description="null: what the context has room for")
    prompt_kept: Literal["first", "last"] = Field(default="last", description="which end of too long a prompt is kept")
    no_repeat_ngram: int = Field(
        default=0, ge=0, description="no so many tokens in a row that prompt or answer had before; 0 is off"
    )

    @model_validator(mode="after")
    def _only_what_draws_has_draws(self) -> DecodingProtocol:
        if self.temperature == 0:
            for key in ("top_p", "top_k", "samples", "seeds"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"`{key}` means nothing at temperature 0; leave it out, or set a temperature")
        elif self.name == "greedy":
            raise ValueError("greedy draws nothing; start from a protocol that does, such as pass@1-sampling")
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise ValueError("the same seed stands twice; give each once")
        if self.reasoning_end != "cut" and self.max_reasoning_tokens is None:
            raise ValueError(
                "`reasoning_end` means nothing without max_reasoning_tokens; set it too, or leave both out"
            )
        return self

    def with_length(self, wanted: int | None, own: int) -> DecodingProtocol:
        """The protocol with another length of completions, where `wanted` differs from its own or else from the task's `own`."""
        if wanted in (None, self.max_new_tokens or own):
            return self
        return self.model_copy(update={"max_new_tokens": wanted})

    def with_reasoning(
        self, wanted: int | None, end: Literal["cut", "close"] | None = None, where: str = "reasoning_end"
    ) -> DecodingProtocol:
        """The protocol with another limit of reasoning, or another end of it at the limit, where one is wanted.

        InputError at `where` for an end without a limit.
        """
        given = {"max_reasoning_tokens": wanted, "reasoning_end": end}
        made = self.model_copy(update={key: value for key, value in given.items() if value is not None})
        if end is not None and made.max_reasoning_tokens is None:
            raise InputError(f"{where}: means nothing without a limit of reasoning; fix: set max_reasoning_tokens too")
        return made

    @property
    def num_samples(self) -> int:
        """The samples of each prompt."""
        return self.samples * len(self.seeds or (0,))

    def seed_of(self, index: int, default: int) -> int | None:
        """The generation seed of the answer with this index among those of its prompt; None where nothing is drawn."""
        return None if self.temperature == 0 else (self.seeds or (default,))[index // self.samples]

    @property
    def settings(self) -> dict[str, Any]:
        """All fields, the name included, as JSON has them."""
        return self.model_dump(mode="json")

    @property
    def label(self) -> str:
        """The name, and every setting that differs from the preset of that name: equal labels are equal protocols."""
        preset = PROTOCOLS.get(self.name, DecodingProtocol(name=self.name)).settings
        changed = {key: value for key, value in self.settings.items() if value != preset.get(key)}
        texts = {key: " ".join(map(str, v)) if isinstance(v, list) else str(v) for key, v in changed.items()}
        return ", ".join([self.name, *(f"{key}={text}" for key, text in texts.items())])


def column_title(task: str, label: str | None) -> str:
    """What the scores of a task under a protocol stand under: `dolly`, or `dolly [minillm-sampling]`."""
    return task if label in (None, GREEDY.name) else f"{task} [{label}]"


GREEDY = DecodingProtocol(name="greedy")

PROTOCOLS: dict[str, DecodingProtocol] = {
    protocol.name: protocol
    for protocol in (
        GREEDY,
        # The Rouge-L tables of MiniLLM, DSKD and those who compare with them.
        DecodingProtocol(
            name="minillm-sampling",
            temperature=1.0,
            seeds=(10, 20, 30, 40, 50),
            max_new_tokens=256,
            max_prompt_tokens=256,
            prompt_kept="first",
            no_repeat_ngram=6,
        ),
        # The Codex paper's settings (Chen et al. 2021): a low temperature is best for pass@1, a high one for many samples.
        DecodingProtocol(name="pass@1-sampling", temperature=0.2, top_p=0.95, samples=20),
        DecodingProtocol(name="pass@k-sampling", temperature=0.8, top_p=0.95, samples=100),
        # Models that reason, on few problems: the settings that DeepSeek-R1 and others after it report AIME with.
        DecodingProtocol(name="reasoning-sampling", temperature=0.6, top_p=0.95, samples=16),
    )
}
