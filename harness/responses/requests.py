"""The requests that ask a teacher behind an endpoint: one a sample, or one a prompt with `n`; each is the same in every command."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import dskd.data
from dskd.errors import InputError
from dskd.tokenization.conversations import Conversation, Message, to_messages
from dskd.tokenization.prompt_templates import (
    Instruction,
    Template,
    alpaca,
    is_rendered,
    prompt_text,
    user_message,
)
from dskd.tokenization.reasoning import markers_of, opens
from harness.endpoints.replies import Api
from harness.engines._seeds import sample_seed
from harness.responses.prompts import Asked

# What the harness itself says in each request.
RESERVED = ("model", "messages", "prompt", "tools", "stream", "n", "seed")


@dataclass(frozen=True)
class Asking:
    """How a teacher is asked.

    Attributes:
        api: `chat`: messages, which the server puts into its template; `completions`: a text that is continued.
        model: Its name at the server.
        max_new_tokens: Of a response, with its reasoning.
        temperature: 0 is greedy.
        samples: Responses to each prompt.
        together: All of a prompt come from one request, by `n` of the API.
        seed: Of the sampling: each sample has a seed of its own that follows from it.
        parameters: More of the request's body. None leaves out what would be sent: `seed`, `temperature`, `max_tokens`.
        template: How prompts are asked (see `content_of`).
    """

    api: Api
    model: str
    max_new_tokens: int
    temperature: float = 0.0
    samples: int = 1
    together: bool = False
    seed: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    template: Template | None = None

    def check(self, option: str) -> None:
        """InputError for parameters that cannot be, and for equal samples. option: how the user gave parameters."""
        for name in RESERVED:
            if self.parameters.get(name) is not None:
                raise InputError(f"{option} {name}: is set by the harness itself in each request; fix: leave it out")
        if self.samples > 1 and self.parameters.get("temperature", self.temperature) == 0:
            raise InputError(
                f"samples: {self.samples} at temperature 0 would be the same; fix: give a temperature, or one sample"
            )


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        number: Of the prompt, from 0.
        sample: Of the first response that it asks for.
        samples: How many it asks for.
        content: Messages; or a text, or the ids of its tokens.
        parameters: Of its body, besides the model and the content.
        opened: Whether the prompt of a completions API ends inside open reasoning.
    """

    asking: Asking
    number: int
    sample: int
    samples: int
    content: Any
    parameters: Mapping[str, Any]
    opened: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """What tells it apart."""
        return self.number, self.sample

    @cached_property
    def hash(self) -> str:
        """The sha256 of what is asked: a stored reply is used for nothing else."""
        asked = [self.asking.api, self.asking.model, self.content, dict(self.parameters)]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def askable(prompts: Sequence[Asked], tokenizer: Any | None) -> tuple[list[Asked], int]:
    """(what a tokenizer's template takes, how many conversations it does not); all, where no tokenizer is here."""
    if tokenizer is None:
        return [*prompts], 0
    taken = [each for each in prompts if not isinstance(each, Conversation) or is_rendered(tokenizer, each)]
    return taken, len(prompts) - len(taken)


def requests_of(prompts: Sequence[Asked], asking: Asking, tokenizer: Any | None = None) -> Iterator[Request]:
    """The requests for every sample of every prompt, in their order.

    Args:
        tokenizer: The teacher's. A completions API is given the ids that a local teacher would be given.

    Raises:
        InputError: For a prompt that such a teacher cannot be asked.
    """
    # Behind a chat API the server decides what the prompt ends with, and may take reasoning out without a word.
    markers = markers_of(tokenizer) if tokenizer is not None and asking.api == "completions" else None
    for number, prompt in enumerate(prompts):
        content = content_of(prompt, asking, tokenizer)
        opened = markers is not None and opens(prompt_text(tokenizer, prompt), markers)
        at_once = asking.samples if asking.together else 1
        for sample in range(0, asking.samples, at_once):
            parameters = _parameters(prompt, asking, number, sample)
            yield Request(asking, number, sample, at_once, content, parameters, opened)


def content_of(prompt: Asked, asking: Asking, tokenizer: Any | None) -> Any:
    """What a server is given of a prompt.

    A chat API gets messages: a text or an instruction as one of the user (with the template alpaca, as its text), a conversation as it
    is, and the template's system message before them. A completions API gets the text that a local teacher gets, as the ids of its
    tokens where the tokenizer is here.
    """
    if asking.api == "chat":
        return as_messages(prompt, asking.template)
    if tokenizer is not None:
        return [int(k) for k in dskd.data.encode_prompt(tokenizer, prompt_text(tokenizer, prompt))]
    kind = asking.template.kind if asking.template is not None else None
    if isinstance(prompt, str) and kind is None:
        return prompt
    if isinstance(prompt, Instruction) and kind == "alpaca":
        return alpaca(prompt)
    raise InputError(
        "teacher: a completions API continues a text, and only a template makes one of instructions and conversations; "
        "fix: give the template alpaca, or chat with the teacher's tokenizer; or ask a chat API"
    )


def as_messages(prompt: Asked, template: Template | None) -> list[dict[str, Any]]:
    """A prompt as messages of a chat API: arguments of calls as JSON text, and every call with an id that its result names."""
    if isinstance(prompt, Conversation):
        messages = prompt.messages
    elif isinstance(prompt, Instruction):
        framed = template is not None and template.kind == "alpaca"
        messages = (Message("user", alpaca(prompt)) if framed else user_message(prompt),)
    else:
        messages = (Message("user", prompt),)
    system = template.system if template is not None else None
    if system is not None and not (messages and messages[0].role in {"system", "developer"}):
        messages = (Message("system", system), *messages)
    return _with_call_ids(to_messages(Conversation(messages)))


def _with_call_ids(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    unanswered: list[str] = []
    made = 0
    for message in messages:
        if "tool_calls" in message:
            unanswered = []
            for call in message["tool_calls"]:
                made += 1
                call.setdefault("id", f"call_{made}")
                call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
                unanswered.append(call["id"])
            message["content"] = message["content"] or None
        elif message["role"] == "tool":
            if "tool_call_id" not in message and unanswered:
                message["tool_call_id"] = unanswered[0]
            unanswered = [each for each in unanswered if each != message.get("tool_call_id")]
    return messages


def _parameters(prompt: Asked, asking: Asking, number: int, sample: int) -> dict[str, Any]:
    own: dict[str, Any] = {
        "temperature": asking.temperature,
        "max_tokens": asking.max_new_tokens,
        # Servers keep seeds in 32 bits, some with a sign.
        "seed": sample_seed(asking.seed, str(number), sample) >> 32,
    }
    if asking.together:
        own["n"] = asking.samples
    if asking.api == "chat":
        if isinstance(prompt, Conversation) and prompt.tools:
            own["tools"] = list(prompt.tools)
        if asking.template is not None and asking.template.arguments:
            own["chat_template_kwargs"] = asking.template.arguments
    if "max_completion_tokens" in asking.parameters:
        del own["max_tokens"]
    return {name: value for name, value in (own | dict(asking.parameters)).items() if value is not None}
