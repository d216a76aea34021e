"""Options and report of a training run. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, Field, model_validator

from dskd.modeling.lora import LoraOptions
from dskd.options import NOT_IDENTITY, Options
from dskd.rollouts.options import RolloutOptions, RolloutReport


class TrainingOptions(Options):
    """How a student is trained. Exactly one of `steps` and `epochs` is given; lengths are in tokens.

    A step is one optimizer step over batch_size × gradient_accumulation_steps examples a process.
    """

    steps: int | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0)
    batch_size: int = Field(16, gt=0, description="examples a micro-batch of one process")
    batch_tokens: int | None = Field(
        None, gt=0, description="instead of batch_size: as many examples as fit into so many tokens of either model"
    )
    batching: Literal["random", "length_grouped"] = Field(
        "random", description="length_grouped: examples of like length together, for less padding"
    )
    packing: bool | Literal["auto"] = Field(
        "auto",
        description="several examples in a row, attention kept within each; auto: where method and models allow it",
    )
    gradient_accumulation_steps: int = Field(1, gt=0)
    learning_rate: float = Field(5e-4, gt=0)
    projector_learning_rate: float = Field(1e-3, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    max_gradient_norm: float = Field(1.0, ge=0, description="0 does not clip")
    max_length: int = Field(
        512, gt=1, description="of the data, when it is prepared; longer examples are left out and counted, never cut"
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: the teacher's weights and the products; the student's weights stay float32"
    )
    gradient_checkpointing: bool = False
    chunked_loss: bool = Field(
        True,
        validation_alias=AliasChoices("chunked_loss", "fused_loss"),
        serialization_alias="fused_loss",
        description="the loss in chunks of tokens; the same objective in far less memory",
    )
    chunk_tokens: Annotated[int | None, NOT_IDENTITY] = Field(
        None, gt=0, description="tokens a chunk of the chunked loss; by default by vocabulary"
    )
    lora: LoraOptions | None = Field(None, description="train a low-rank adapter instead of all weights")
    rollouts: RolloutOptions | None = Field(
        None, description="examples whose response the student writes itself; by default all text is the data's"
    )
    torch_compile: bool = Field(False, description="compile the student's layers; pays off in long runs on a GPU")
    split_batches: Annotated[int, NOT_IDENTITY] = Field(
        1,
        gt=0,
        description="parts in which each micro-batch is computed, one after the other: the same step in less memory",
    )
    checkpoint_steps: Annotated[int | None, NOT_IDENTITY] = Field(
        None, gt=0, description="a checkpoint after every so many steps"
    )
    checkpoint_seconds: Annotated[float | None, NOT_IDENTITY] = Field(
        None,
        gt=0,
        description="a checkpoint after so many seconds, at the end of a step; where neither this nor checkpoint_steps is given, such "
        "that checkpoints take 5 % of the time at most",
    )
    logging_steps: Annotated[int, NOT_IDENTITY] = Field(10, gt=0)
    trackers: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...], NOT_IDENTITY] = Field(
        (), description="where logged steps go besides the model's training_log.jsonl; each needs its package"
    )

    @model_validator(mode="after")
    def _one_length(self) -> TrainingOptions:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        if self.batch_tokens is not None and "batch_size" in self.model_fields_set and self.batch_size != 16:
            raise ValueError("give either batch_size or batch_tokens")
        return self


class TeacherReport(BaseModel):
    """One of several teachers. Its terms are among the `losses`, under NAME/term."""

    examples: int = Field(description="that it teaches")
    unmatched: int = Field(description="of its data, that not all teachers have, so that nobody teaches them")
    seconds: float = Field(description="as `teacher_seconds`; those of a model that has two names count for both")


class TrainingReport(BaseModel):
    """What a run cost and how it ended. Seconds are of the first process.

    A resumed run counts all its starts, each up to the checkpoint that the next went on from.
    """

    steps: int
    train_seconds: float
    teacher_seconds: float = Field(description="in the teacher's layers; its head's products belong to the loss")
    tokens: int = Field(description="student tokens trained on by all processes, prompts included, padding not")
    tokens_per_second: float = Field(description="`tokens` by `train_seconds`")
    padding_share: float | None = Field(description="of the places in the student's batches that hold no token")
    teacher_examples: int = Field(description="that the teacher itself was run on, in all processes")
    peak_device_memory: int | None = Field(description="bytes of a GPU, the largest of all processes; null without one")
    losses: dict[str, float | None] = Field(
        description="mean of each term over the last logged steps, and how often the models predict their labels"
    )
    distilled_share: float | None = Field(
        None,
        description="of the student's labelled tokens that the teacher's terms teach, the mean of the logged steps; null without one",
    )
    gradient_norm: float | None = Field(None, description="of the last logged step, before it is clipped")
    resumed_from_step: int
    split_batches: int = Field(1, description="parts in which each micro-batch was computed, by the last start")
    rollouts: RolloutReport | None = Field(None, description="the student's own text; null where it wrote none")
    probe: dict[str, Any] | None = Field(
        None, description="what was found out about a served teacher before the first step; null without one"
    )
    served: dict[str, Any] | None = Field(
        None,
        description="what a served teacher cost: tokens that it was asked about, bytes, requests, seconds of waiting",
    )
    teachers: dict[str, TeacherReport] | None = Field(None, description="of several teachers, by name; null with one")
