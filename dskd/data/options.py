"""How the rows of a training set are read: said by a user, in a matrix or on a command line."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dskd.data.columns import template_columns
from dskd.data.messages import TrainOn
from dskd.tokenization.prompt_templates import Template

# What models take: texts as they stand, instructions, instructions and conversations; `any` reads whatever a row holds.
Takes = Literal["text", "alpaca", "chat", "any"]
Shape = Literal[
    "prompt/output", "prompt/completion", "prompt/response", "question/answer", "instruction/output", "messages", "conversations"
]  # fmt: skip


def takes_of(*templates: Template | None) -> Takes:
    """What models with these prompt templates take together; None is a model without one."""
    kinds = {template.kind for template in templates if template is not None}
    if not kinds:
        return "text"
    return "alpaca" if "alpaca" in kinds else "chat"


_KEYS = ("prompt", "instruction", "input", "output", "system", "reasoning")
COLUMN_KEYS = (*_KEYS, "messages", "tools")


class DataOptions(BaseModel):
    """How the rows of a training set are read.

    Attributes:
        shape: The shape of its rows; detected if not given.
        prompt, instruction, input, output, system, reasoning: Templates over its columns, as `Question: {question}`.
        messages, tools: The names of its columns of messages and of tools.
        train_on: Which messages of the assistant are trained on; `last` leaves the earlier ones out.
        split_reasoning: Whether `<think>…</think>` before a response is its reasoning. By default only in lists of messages.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: Shape | None = None
    prompt: str | None = None
    instruction: str | None = None
    input: str | None = None
    output: str | None = None
    system: str | None = None
    reasoning: str | None = None
    messages: str | None = Field(default=None, min_length=1)
    tools: str | None = Field(default=None, min_length=1)
    train_on: TrainOn = "all"
    split_reasoning: bool | None = None

    @property
    def columns(self) -> dict[str, str] | None:
        """The template of each key of an example; None if the rows have the keys themselves."""
        found = {key: getattr(self, key) for key in _KEYS}
        return {key: text for key, text in found.items() if text is not None} or None

    @property
    def options(self) -> DataOptions:
        """These options without what a subclass has beside them."""
        return DataOptions(**{name: getattr(self, name) for name in DataOptions.model_fields})

    @property
    def are_default(self) -> bool:
        """Whether rows are read by their own keys alone."""
        return all(getattr(self, name) == field.default for name, field in DataOptions.model_fields.items())

    @property
    def are_of_texts(self) -> bool:
        """Whether they name prompts, instructions, inputs and outputs at most, so that no row is a conversation by them."""
        own = ("shape", "system", "reasoning", "messages", "tools", "split_reasoning")
        return all(getattr(self, name) is None for name in own)

    @field_validator(*_KEYS)
    @classmethod
    def _plain_columns(cls, template: str | None) -> str | None:
        if template is not None:
            template_columns(template)
        return template

    @model_validator(mode="after")
    def _go_together(self) -> DataOptions:
        given = set(self.columns or ())
        if self.shape is not None and (given or self.messages):
            raise ValueError(
                "`shape` says which columns there are, and so do the names of columns; fix: give one of the two"
            )
        if self.messages is not None:
            wrong = given - {"system"}
        elif "instruction" in given:
            wrong = given - {"instruction", "input", "output", "system", "reasoning"} or {"output"} - given
        else:
            wrong = given - {"prompt", "output"} or (given and {"prompt", "output"} - given) or set()
        if wrong:
            raise ValueError(
                "these keys go together: `prompt` and `output`; `instruction`, `output` and perhaps `input`, `system`, `reasoning`, "
                "`tools`; `messages` and perhaps `system`, `tools`; fix: give all of one kind, or none"
            )
        if self.tools is not None and "prompt" in given:
            raise ValueError(
                "`tools` means nothing to a prompt that is a whole text; fix: give `instruction` or `messages`"
            )
        return self


DEFAULT = DataOptions()
