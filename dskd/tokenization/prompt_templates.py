"""How a model is asked: Alpaca's template or the tokenizer's own chat template around an instruction, or a text as it stands.

A template is saved with its tokenizer, so that training and every evaluation read the same one. With a chat template the end of
sequence is the token that ends a turn.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, model_validator

from dskd.errors import InputError

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
# Llama's chat template writes the day on which it is rendered unless it is given one: prompts would change overnight.
_DATE = "26 Jul 2024"


class Template(BaseModel):
    """`alpaca`, or `chat` (the tokenizer's own chat template), which may have a `system` message."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["alpaca", "chat"]
    system: str | None = None

    @model_validator(mode="after")
    def _system_is_of_a_chat(self) -> Template:
        if self.system is not None and self.kind != "chat":
            raise ValueError(f"`system` means nothing with kind: {self.kind}; leave it out, or use kind: chat")
        return self


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
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(_end_of_turn(tokenizer, template))


def describe(tokenizer: Any) -> dict[str, Any] | None:
    """What a record says of a tokenizer's template: its kind, its system message, and the sha256 of what it writes."""
    template = template_of(tokenizer)
    if template is None:
        return None
    written = [prompt_text(tokenizer, Instruction("{instruction}", given)) for given in ("", "{input}")]
    digest = hashlib.sha256(json.dumps([*written, tokenizer.eos_token]).encode()).hexdigest()
    return {**template.model_dump(), "sha256": digest}


def prompt_text(tokenizer: Any, prompt: str | Instruction) -> str:
    """The text that a model is given for a prompt: a text as it stands, an instruction in the model's template; else InputError."""
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
    if template.kind == "alpaca":
        return alpaca(prompt)
    content = f"{prompt.instruction}\n\n{prompt.input}" if prompt.input else prompt.instruction
    return _chat(tokenizer, template, [{"role": "user", "content": content}], generate=True)


def writes_special_tokens(tokenizer: Any) -> bool:
    """Whether prompts come with every special token that belongs there, so that the tokenizer must add none: chat templates do."""
    template = template_of(tokenizer)
    return template is not None and template.kind == "chat"


def _chat(tokenizer: Any, template: Template, messages: list[dict[str, str]], *, generate: bool) -> str:
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise InputError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template; fix: save one with it (chat_template), or use alpaca"
        )
    if template.system is not None:
        messages = [{"role": "system", "content": template.system}, *messages]
    try:
        return tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=generate, date_string=_DATE
        )
    except TemplateError as error:
        raise InputError(
            f"{tokenizer.name_or_path}: its chat template does not take these messages ({error}); fix: leave out `system`, or use "
            "alpaca"
        ) from error


def _end_of_turn(tokenizer: Any, template: Template) -> int:
    """The special token that the chat template writes after an answer."""
    answer = "So it is said in this turn."  # text that no template writes itself
    messages = [{"role": "user", "content": "question"}, {"role": "assistant", "content": answer}]
    rest = _chat(tokenizer, template, messages, generate=False).rpartition(answer)[2]
    special = {*tokenizer.added_tokens_encoder, *tokenizer.all_special_tokens}
    ids = tokenizer(rest, add_special_tokens=False)["input_ids"]
    found = next((k for k in ids if tokenizer.convert_ids_to_tokens(k) in special), None)
    if found is None:
        raise InputError(
            f"{tokenizer.name_or_path}: its chat template ends an answer with {rest!r}, which holds no special token, so a model "
            "could not learn to stop; fix: use alpaca, or a chat template that ends a turn"
        )
    return int(found)
