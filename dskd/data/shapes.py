"""A row of a training set as an example or a conversation: the shapes that people publish, detected or said, and columns by template.

What a row may become depends on what the models take. Models without a template take a prompt as it stands; those with Alpaca's take an
instruction and its input; those with a chat template take an instruction or a conversation. A column that would change what is asked
(`system`, `history`, images) is used or refused, and never dropped. Other columns do not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from dskd.data.columns import OPTIONAL, fill_templates
from dskd.data.messages import MEDIA, Lacking, Unusable, is_of_assistant, read_conversation
from dskd.data.options import DEFAULT, DataOptions, Shape, Takes
from dskd.errors import InputError
from dskd.tokenization.conversations import Conversation
from dskd.tokenization.prompt_templates import Instruction

_ANSWERS = {"prompt/output": "output", "prompt/completion": "completion", "prompt/response": "response"}
_MESSAGES: dict[str, Shape] = {
    "messages": "messages", "conversations": "conversations", "conversation": "conversations",
}  # fmt: skip
_SYSTEM = ("system", "system_prompt")
_TOOLS = ("tools", "functions")
# For a message about a row of no known shape: what its columns may be.
_ASKED = ("instruction", "prompt", "question", "query", "problem", "input", "text")
_ANSWERED = ("output", "completion", "response", "answer", "solution", "target", "message_content")


@dataclass(frozen=True)
class Example:
    """A prompt and its response. The prompt is a text as the model sees it, or an instruction for each model's template."""

    prompt: str | Instruction
    response: str


Item = Example | Conversation


def read_row(row: Mapping[str, Any], where: str, takes: Takes, options: DataOptions = DEFAULT) -> Item:
    """What a row is.

    Args:
        row: The row.
        where: Its place, for errors.
        takes: What the models that are trained on it take.
        options: How it is read.

    Returns:
        An `Example`, or a `Conversation` where there is more than an instruction and a response.

    Raises:
        Unusable: For a row that cannot be trained on, though others of its source may.
        InputError: For a row that is not what the models take, or of no known shape: the whole source has to be read otherwise.
    """
    if options.columns is not None and options.messages is None:
        return _of_columns(row, where, takes, options)
    if options.messages is not None:
        if options.messages not in row:
            _refuse(row, where, takes, f"the column of messages, '{options.messages}', is not there")
        return _conversation(row, where, takes, options, options.messages, explicit=True)
    shape = options.shape or shape_of(row, takes)
    if shape is None:
        _refuse(row, where, takes)
    if shape in ("messages", "conversations"):
        column = next((name for name, own in _MESSAGES.items() if own == shape and name in row), None)
        if column is None:
            _refuse(row, where, takes, f"has no {shape}")
        return _conversation(row, where, takes, options, column)
    if shape in _ANSWERS:
        return _of_prompt(row, where, takes, options, _ANSWERS[shape])
    return _of_instruction(row, where, takes, options, shape)


def shape_of(row: Mapping[str, Any], takes: Takes) -> Shape | None:
    """The shape of a row, of several that it may have the one that suits what the models take; None for an unknown one."""
    prompts: list[Shape] = [shape for shape, answer in _ANSWERS.items() if "prompt" in row and answer in row]  # type: ignore[misc]
    lists: list[Shape] = [shape for column, shape in _MESSAGES.items() if column in row]
    instructions: list[Shape] = ["instruction/output"] if "instruction" in row and "output" in row else []
    instructions += ["question/answer"] if "question" in row and "answer" in row else []
    turns: list[Shape] = [shape for shape in prompts if isinstance(row["prompt"], list)]
    ordered: dict[Takes, list[Shape]] = {
        "text": [*prompts, *instructions, *lists],
        "any": [*prompts, *lists, *instructions],
        "alpaca": [*instructions, *lists, *prompts],
        "chat": [*lists, *turns, *instructions, *prompts],
    }
    return next(iter(ordered[takes]), None)


# --- examples ---


def _of_columns(row: Mapping[str, Any], where: str, takes: Takes, options: DataOptions) -> Item:
    assert options.columns is not None
    made = fill_templates(row, where, options.columns, OPTIONAL)
    tools = _tools(row, where, takes, options) if options.tools is not None else None
    if "prompt" in made:
        _require(takes, "text", row, where)
        return Example(made["prompt"], _response(made["output"], where, "output"))
    beside = {"system": made.get("system"), "reasoning": made.get("reasoning"), "tools": tools}
    asked = Instruction(made["instruction"], made.get("input", ""))
    return _asked(asked, made["output"], where, takes, options, beside, row=row, answer="output")


def _of_prompt(row: Mapping[str, Any], where: str, takes: Takes, options: DataOptions, answer: str) -> Item:
    prompt, response = row.get("prompt"), row.get(answer)
    if isinstance(prompt, list):
        return _of_turns(row, where, takes, options, prompt, response)
    if takes in ("alpaca", "chat"):
        _refuse(row, where, takes)
    if response is None and answer in row and isinstance(prompt, str):
        response = ""
    if not isinstance(prompt, str) or not isinstance(response, str):
        _refuse(row, where, takes)
    unused = ("input",) if "instruction" not in row else ()
    _require_unused(row, where, (*_SYSTEM, "history", *_TOOLS, *unused))
    return Example(prompt, _response(response, where, answer))


def _of_turns(
    row: Mapping[str, Any], where: str, takes: Takes, options: DataOptions, prompt: list[Any], response: Any
) -> Conversation:
    """TRL's lists of messages in `prompt` and `completion`: only the second is trained on."""
    _require(takes, "chat", row, where)
    answer = [{"role": "assistant", "content": response}] if isinstance(response, str) else response
    if not isinstance(answer, list):
        _refuse(row, where, takes, "the prompt is a list of messages, and what follows it is neither a list nor text")
    before = [{**each, "train": False} if is_of_assistant(each) else each for each in prompt]
    _require_unused(row, where, (*_SYSTEM, "history"))
    return read_conversation(before + answer, where, tools=_first(row, _TOOLS), **_settings(options))


def _of_instruction(row: Mapping[str, Any], where: str, takes: Takes, options: DataOptions, shape: Shape) -> Item:
    question, answer = shape.split("/")
    if takes == "text":
        _refuse(row, where, takes, fix=f"{_mapping(row, takes)}, or give the models a template: alpaca or chat")
    asked, response, given = row.get(question), row.get(answer), row.get("input") or ""
    if response is None and answer in row and isinstance(asked, str):
        response = ""
    if not isinstance(asked, str) or not isinstance(response, str):
        _refuse(row, where, takes)
    if question == "question":
        _require_unused(row, where, ("input",))
        given = ""
    if not isinstance(given, str):
        raise InputError(f"{where}: input must be a string; fix: correct it or leave it out")
    _require_unused(row, where, ())
    beside = {"system": _first(row, _SYSTEM), "history": row.get("history"), "tools": _first(row, _TOOLS)}
    return _asked(Instruction(asked, given), response, where, takes, options, beside, row=row, answer=answer)


def _asked(
    asked: Instruction,
    response: str,
    where: str,
    takes: Takes,
    options: DataOptions,
    beside: Mapping[str, Any],
    *,
    row: Mapping[str, Any],
    answer: str,
) -> Item:
    """An instruction with its response; a conversation where something stands beside it."""
    held = [name for name, value in beside.items() if _is_given(value)]
    response = _response(response, where, answer)
    if not held and not options.split_reasoning:
        _require(takes, "alpaca", row, where)
        return Example(asked, response)
    if takes not in ("chat", "any"):
        name = held[0] if held else "split_reasoning"
        _refuse(
            row,
            where,
            takes,
            f"{name} is for models with a chat template alone",
            "set template: chat, or name the columns to use",
        )
    content = f"{asked.instruction}\n\n{asked.input}" if asked.input else asked.instruction
    messages = _history(beside.get("history"), where)
    messages.append({"role": "user", "content": content})
    messages.append({"role": "assistant", "content": response, "reasoning": beside.get("reasoning") or None})
    system = _system(beside.get("system"), where)
    settings = {**_settings(options), "split_reasoning": bool(options.split_reasoning)}
    return read_conversation(messages, where, tools=beside.get("tools"), system=system, **settings)


def _history(pairs: Any, where: str) -> list[dict[str, Any]]:
    """The turns before the instruction: `[[question, answer], …]`."""
    found: list[dict[str, Any]] = []
    for pair in pairs or ():
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise Unusable(where, "the history is no list of [question, answer]", "correct the row or leave it out")
        found += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return found


def _response(text: str, where: str, key: str) -> str:
    if not text:
        raise Lacking(where, f"{key} is empty", "remove the line or give the response")
    return text


# --- conversations ---


def _conversation(
    row: Mapping[str, Any], where: str, takes: Takes, options: DataOptions, column: str, *, explicit: bool = False
) -> Conversation:
    _require(takes, "chat", row, where)
    if not explicit:
        _require_unused(row, where, ())
    system = _first(row, _SYSTEM)
    if options.system is not None:
        system = fill_templates(row, where, {"system": options.system}, OPTIONAL)["system"]
    settings = _settings(options)
    if row.get("split_reasoning") is False:  # it is split already (`dskd.data.examples.as_row`)
        settings["split_reasoning"] = False
    return read_conversation(
        row[column], where, tools=_tools(row, where, takes, options), system=_system(system, where), **settings
    )


def _tools(row: Mapping[str, Any], where: str, takes: Takes, options: DataOptions) -> Any:
    if options.tools is None:
        return _first(row, _TOOLS)
    if options.tools not in row:
        _refuse(row, where, takes, f"the column of tools, '{options.tools}', is not there")
    return row[options.tools]


def _system(given: Any, where: str) -> str | None:
    if given is not None and not isinstance(given, str):
        raise Unusable(where, "the system message is no text", "correct the row or leave it out")
    return given


def _settings(options: DataOptions) -> dict[str, Any]:
    return {"split_reasoning": options.split_reasoning is not False, "train_on": options.train_on}


# --- what a row has ---


def _is_given(value: Any) -> bool:
    return value is not None and value != "" and value != [] and value != {}


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if _is_given(row.get(name))), None)


def _require_unused(row: Mapping[str, Any], where: str, names: Sequence[str]) -> None:
    """Refuse a row with something in a column that would change what is asked and has no place in its shape."""
    if row.keys().isdisjoint((*MEDIA, *names, "context")):
        return
    for name in MEDIA:
        if _is_given(row.get(name)):
            raise Unusable(where, f"has {name}", "leave the row out: models of text alone are trained")
    for name in (*names, "context"):
        if _is_given(row.get(name)):
            raise InputError(
                f"{where}: {name} changes what is asked, and has no place beside {', '.join(key for key in row if key != name)}; "
                "fix: name the columns to use (docs/data-sources.md), or remove it"
            )


def _require(takes: Takes, needed: Takes, row: Mapping[str, Any], where: str) -> None:
    """Refuse what the models do not take."""
    able: dict[Takes, set[Takes]] = {
        "text": {"text", "any"},
        "alpaca": {"alpaca", "chat", "any"},
        "chat": {"chat", "any"},
    }
    if takes in able[needed]:
        return
    if needed == "chat":
        have = "have no template" if takes == "text" else "have the template alpaca"
        _refuse(row, where, takes, f"holds a conversation, and the models {have}", "set template: chat")
    _refuse(row, where, takes)


def _refuse(row: Mapping[str, Any], where: str, takes: Takes, problem: str = "", fix: str = "") -> NoReturn:
    raise InputError(
        f"{where}: {problem or f'{_first_key(takes)} and output must be strings'}; the row has {_named(row)}; "
        f"fix: {fix or _mapping(row, takes)} (docs/data-sources.md)"
    )


def _first_key(takes: Takes) -> str:
    return "prompt" if takes in ("text", "any") else "instruction"


def _mapping(row: Mapping[str, Any], takes: Takes) -> str:
    """How the columns of a row can be named, with a guess which they are."""
    question = next((name for name in _ASKED if isinstance(row.get(name), str)), None)
    known = (name for name in _ANSWERED if isinstance(row.get(name), (str, int, float)) and name != question)
    answer = next(known, None)
    named = f'name the columns, {_first_key(takes)}: "{{{question or "COLUMN"}}}", output: "{{{answer or "COLUMN"}}}"'
    return named if question and answer else f"{named}, or say its shape"


def _named(row: Mapping[str, Any]) -> str:
    names = [str(name) for name in row]
    return (
        ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") if names else "no columns"
    )
