"""Options and report of rollouts: which examples get a response that the student samples, and how. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from dskd.options import NOT_IDENTITY, OMIT_NONE, Options


class ReplayOptions(Options):
    """How many of the student's texts are drawn again. Defaults are the published code's, but for where the loss comes from."""

    schedule: Literal["adaptive", "mixed"] = Field(
        "adaptive",
        description="adaptive: as the threshold says; mixed: every text that is written goes to the buffer, and one drawn from "
        "there stands in for it",
    )
    capacity: int = Field(1000, gt=0, description="texts that the buffer holds, of all processes; the oldest go first")
    initial_threshold: float = Field(
        0.0, ge=0.0, le=1.0, description="φ at the start, the share of examples whose response the student samples"
    )
    threshold_increase: float = Field(0.1, gt=0.0, le=1.0, description="added to φ where the validation loss has risen")
    loss_tolerance: float = Field(
        0.1, ge=0.0, description="ε, nats a token by which the validation loss is to have risen"
    )
    loss_reference: Literal["last_increase", "lowest"] = Field(
        "last_increase",
        description="the loss that it is compared with: at the last increase of φ, at first at the start (published); or the "
        "lowest since then",
    )
    newly_written: Literal["decreasing", "constant", "increasing"] = Field(
        "decreasing",
        description="the part of φ that is written anew once the buffer is full: 1 − t / T, one half, or t / T at step t of T",
    )
    validation_share: float = Field(
        0.05, gt=0.0, lt=1.0, description="of the examples, those that are held out of training for the validation loss"
    )
    validation_steps: int | None = Field(
        None, gt=0, description="steps from one validation to the next; by default it is at the beginning of each epoch"
    )


class ReplayReport(BaseModel):
    """What became of the student's text under a schedule; counts are of all processes."""

    written: int = Field(description="examples trained on with a text that was just written")
    replayed: int = Field(description="examples whose place a text of the buffer took")
    replayed_share: float | None = Field(description="`replayed` by both")
    data: int = Field(description="examples trained on as the data has them")
    threshold: float | None = Field(description="φ at the end; null for mixed")
    validation_losses: list[float] = Field(description="cross entropy a token on the held-out examples, in order")


class RolloutOptions(Options):
    """Which examples the student's own text takes the place of, and how that is sampled."""

    share: float = Field(0.5, ge=0.0, le=1.0, description="λ, the share of examples whose response the student writes")
    start_epoch: int = Field(0, ge=0, description="the first epoch, counted from 0, in which it does")
    temperature: float = Field(1.0, gt=0.0, description="divides the student's logits when it samples")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="sample from the most probable tokens that hold this share")
    max_new_tokens: int = Field(128, gt=0, description="where a sample is cut; nothing is then supervised as its end")
    engine: Literal["transformers", "vllm"] = "transformers"
    replay: ReplayOptions | None = Field(
        None, description="keep the student's texts and draw them again; by default each is trained on once"
    )

    staleness: Annotated[int | None, OMIT_NONE] = Field(
        None,
        ge=0,
        description="s: the texts of s + 1 steps are written at once, by the weights as they are before the first of them; by default, "
        "and with 0, each step's by the weights as they are then",
    )

    gpu_memory_utilization: Annotated[float, NOT_IDENTITY] = Field(
        0.3,
        gt=0.0,
        lt=1.0,
        description="the share of a GPU's memory for vLLM, with weights of its own; no part of an identity",
    )

    @property
    def writes_ahead(self) -> int:
        """How many later steps the texts are written for, beside the present one's."""
        return self.staleness or 0

    @property
    def may_be_stale(self) -> bool:
        """Whether the weights that are trained may be others than those that wrote the text."""
        return self.writes_ahead > 0 or self.replay is not None

    @field_validator("staleness")
    @classmethod
    def _none_for_zero(cls, value: int | None) -> int | None:
        return value or None  # the same training has the same identity

    @model_validator(mode="after")
    def _one_kind_of_old_text(self) -> RolloutOptions:
        if self.replay is not None and self.staleness:
            raise ValueError(
                "staleness writes texts before it is known what replay's buffer will hold; fix: remove one of the two"
            )
        return self

    @model_validator(mode="after")
    def _one_share(self) -> RolloutOptions:
        adaptive = self.replay is not None and self.replay.schedule == "adaptive"
        if adaptive and "share" in self.model_fields_set and self.share != 0.5:
            raise ValueError("give either share or the adaptive schedule, whose threshold stands for it")
        return self


class RolloutReport(BaseModel):
    """What was sampled, by all processes; seconds are of the first."""

    samples: int
    mean_length: float | None = Field(description="student tokens a sample, its end included")
    ended_share: float | None = Field(description="of the samples, those that ended before max_new_tokens")
    left_out: dict[str, int] = Field(description="samples not used, by reason; the data's example stood in for each")
    seconds: float = Field(description="spent sampling, a part of train_seconds")
    warnings: list[str] = Field(default_factory=list, description="signs that something went wrong, with their numbers")
    mean_age: float | None = Field(
        None, description="steps from the weights that wrote a sample to its step, a mean; null without staleness"
    )
    replay: ReplayReport | None = Field(None, description="texts that were drawn again; null where none were kept")
