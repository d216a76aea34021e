"""How a model is asked: Alpaca's template or the tokenizer's own chat template around an instruction, or a text as it stands.

A template is saved with its tokenizer, so that training and every evaluation read the same one. With a chat template the end of
sequence is the token that ends a turn (dskd/tokenization/chat_template.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator
from pydantic.functional_serializers import SerializerFunctionWrapHandler

from dskd.errors import InputError
from dskd.tokenization.chat_rendering import NotRendered
from dskd.tokenization.chat_template import ChatTemplate
from dskd.tokenization.conversations import Conversation, Message

# The setting in tokenizer_config.json; tokenizers keep settings that they do not know.
KEY = "prompt_template"

_ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
_ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
# What the harness itself decides when a chat template is rendered.
_OWN_ARGUMENTS = frozenset(
    {
        "messages",
        "conversation",
        "tools",
        "documents",
        "chat_template",
        "add_generation_prompt",
        "continue_final_message",
    }
    | {
        "tokenize",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
    }
)


class Template(BaseModel):
    """`alpaca`, or `chat` (the tokenizer's own chat template).

    Attributes:
        system: The system message of conversations that have none.
        arguments: What else the chat template is given, such as `enable_thinking: false`.
        reasoning: What becomes of the reasoning before an answer. `cut`: it is left out of training, and the model answers at once.
            `train`: the model learns to write it. `keep`: it is context that the answer is trained after. By default `train` where the
            generation prompt opens reasoning or an argument such as `enable_thinking: true` turns it on, else `cut`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["alpaca", "chat"]
    system: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    reasoning: Literal["cut", "keep", "train"] | None = None

    @model_validator(mode="after")
    def _settings_of_a_chat(self) -> Template:
        if self.kind != "chat":
            for key in ("system", "arguments", "reasoning"):
                if getattr(self, key) != type(self).model_fields[key].get_default(call_default_factory=True):
                    raise ValueError(f"`{key}` means nothing with kind: {self.kind}; leave it out, or use kind: chat")
        for name in sorted(_OWN_ARGUMENTS & self.arguments.keys()):
            raise ValueError(f"arguments: `{name}` is decided by the data and the task")
        return self

    @model_serializer(mode="wrap")
    def _without_new_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As it was before there were arguments and reasoning, where they have their defaults: it is a part of identities."""
        defaults: dict[str, Any] = {"arguments": {}, "reasoning": None}
        return {key: value for key, value in handler(self).items() if key not in defaults or value != defaults[key]}

    def __hash__(self) -> int:
        return hash(self.model_dump_json())


class Instruction(NamedTuple):
    """What is asked of a model, before any template; `input` is what it is asked about, or empty."""

    instruction: str
    input: str = ""


def alpaca(asked: Instruction) -> str:
    """An instruction in Stanford Alpaca's template, with the section for the input only where there is one."""
    frame = _ALPACA_WITH_INPUT if asked.input else _ALPACA
    return frame.format(instruction=asked.instruction, input=asked.input)


def template_of(tokenizer: Any) -> Template | None:
    """The template that was set for this tokenizer; None where prompts are texts as they stand."""
    found = tokenizer.init_kwargs.get(KEY)
    return Template.model_validate(found) if found else None


def set_template(tokenizer: Any, template: Template) -> None:
    """Make a template the tokenizer's, to be saved with it; a chat's end of turn becomes its end of sequence."""
    tokenizer.init_kwargs[KEY] = template.model_dump()
    if template.kind == "chat":
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(chat_template(tokenizer).end)


# Where a tokenizer keeps its chat template: it is tried out once for each setting, when it is first used.
_KEPT = "_chat_template_in_use"


def chat_template(tokenizer: Any) -> ChatTemplate:
    """The tokenizer's chat template with the settings of its prompt template. InputError where it cannot be used."""
    template = template_of(tokenizer) or Template(kind="chat")
    key = (template.model_dump_json(), str(tokenizer.chat_template), tokenizer.eos_token)
    known = getattr(tokenizer, _KEPT, None)
    if known is None or known[0] != key:
        settings: Mapping[str, Any] = template.model_dump(exclude={"kind"})
        known = key, ChatTemplate(tokenizer, **settings)
        setattr(tokenizer, _KEPT, known)
    return known[1]


def describe(tokenizer: Any) -> dict[str, Any] | None:
    """What a record says of a tokenizer's template: its kind, its system message, and the sha256 of what it writes."""
    template = template_of(tokenizer)
    if template is None:
        return None
    written = [prompt_text(tokenizer, Instruction("{instruction}", given)) for given in ("", "{input}")]
    digest = hashlib.sha256(json.dumps([*written, tokenizer.eos_token]).encode()).hexdigest()
    return {**template.model_dump(), "sha256": digest}


def prompt_text(tokenizer: Any, prompt: str | Instruction | Conversation) -> str:
    """The text that a model is given for a prompt: a text as it stands, an instruction or a conversation in the model's template.

    InputError for what the model does not take.
    """
    template = template_of(tokenizer)
    if isinstance(prompt, str):
        if template is not None:
            raise InputError(
                f"{tokenizer.name_or_path}: the model has a template ({template.kind}), which is for instructions, and the prompt "
                "is a whole text; fix: give instruction and output, or a model without template"
            )
        return prompt
    if template is None:
        raise InputError(
            f"{tokenizer.name_or_path}: the model has no template for an instruction; fix: give it one (alpaca or chat), "
            "or whole prompts"
        )
    conversation = Conversation((user_message(prompt),)) if isinstance(prompt, Instruction) else prompt
    if template.kind == "alpaca":
        if not isinstance(prompt, Instruction):
            raise InputError(
                f"{tokenizer.name_or_path}: the template alpaca has no place for a conversation; fix: use chat"
            )
        return alpaca(prompt)
    try:
        return chat_template(tokenizer).prompt(conversation)
    except NotRendered as error:
        raise InputError(
            f"{tokenizer.name_or_path}: {error}; fix: leave out `system` and `arguments`, or use alpaca"
        ) from error


def is_rendered(tokenizer: Any, conversation: Conversation) -> bool:
    """Whether the model's chat template takes what is said in a conversation before the next turn of the assistant."""
    try:
        chat_template(tokenizer).prompt(conversation)
    except NotRendered:
        return False
    return True


def user_message(asked: Instruction) -> Message:
    """An instruction as what a user says."""
    return Message("user", f"{asked.instruction}\n\n{asked.input}" if asked.input else asked.instruction)


def writes_special_tokens(tokenizer: Any) -> bool:
    """Whether prompts come with every special token that belongs there, so that the tokenizer must add none: chat templates do."""
    template = template_of(tokenizer)
    return template is not None and template.kind == "chat"
