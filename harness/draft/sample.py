"""A training set as a draft needs it: how its rows are read, how many there are, and how long a sample of them is in both models' tokens."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dskd import hub
from dskd.data.conversations import Conversation
from dskd.data.examples import LeftOut, as_row, examples_in
from dskd.data.formats import Row
from dskd.data.hub_rows import parse_hub_data, rows_of_hub
from dskd.data.options import DataOptions, Takes
from dskd.data.preparation import encode_prompt
from dskd.data.reading import is_pipe, rows_of
from dskd.data.shapes import Example, Item, shape_of
from dskd.errors import InputError
from dskd.tokenization.prompt_templates import Template, prompt_text, set_template
from harness.costs.formulas import Lengths
from harness.draft.pair import DraftedModel, DraftedPair
from harness.planning.checks import COMPARED

SAMPLE = 1000
_STEP = 64  # max_length is a multiple
_KEPT = 0.99


@dataclass(frozen=True)
class DraftedData:
    """A training set.

    Attributes:
        given: As the user gave it.
        options: How its rows are read.
        template: Of both models; None for whole prompts.
        why: Why this template.
        examples: How many can be used.
        left_out: What cannot.
        sample: Some of them, at random.
        prompts: The whole prompts among the first, which planning compares with those of tasks.
    """

    given: str
    options: DataOptions
    template: str | None
    why: str
    examples: int
    left_out: LeftOut
    sample: list[Item] = field(repr=False)
    prompts: list[str] = field(repr=False)


def first_row(given: str) -> Row:
    """The first row of a training set. InputError where there is none."""
    with _named():
        return next(row for _, row in _rows(given))


def look_at_data(given: str, pair: DraftedPair, options: DataOptions) -> DraftedData:
    """Read a training set once, and keep a random sample of what it holds. InputError for what the pair cannot be trained on."""
    takes, template, why = _template(first_row(given), pair, options)
    left_out, generator = LeftOut(), random.Random(0)
    sample: list[Item] = []
    prompts: list[str] = []
    count = 0
    with _named():
        for item in examples_in(_rows(given), given, takes, options, left_out=left_out.add):
            count += 1
            if count <= COMPARED and isinstance(item, Example) and isinstance(item.prompt, str):
                prompts.append(item.prompt)
            if len(sample) < SAMPLE:
                sample.append(item)
            elif (place := generator.randrange(count)) < SAMPLE:
                sample[place] = item
    return DraftedData(given, options, template, why, count, left_out, sample, prompts)


@contextmanager
def _named() -> Iterator[None]:
    """Errors about a training set begin with its option."""
    try:
        yield
    except InputError as error:
        raise InputError(f"--data {error}") from None


def _rows(given: str) -> Iterator[tuple[str, Row]]:
    if (data := parse_hub_data(given)) is not None:
        yield from rows_of_hub(data, hub.resolve(data.name.repo, data.name.revision, "dataset"))
        return
    if is_pipe(Path(given)):
        raise InputError(f"{given}: is a pipe, which a matrix cannot name; fix: write it into a file, and give that")
    yield from rows_of(Path(given))


def _template(row: Row, pair: DraftedPair, options: DataOptions) -> tuple[Takes, str | None, str]:
    """What the models take, the template that they are given for it, and why."""
    own = [model.template for model in pair.models]
    if any(own):
        kinds = sorted({template.kind if template else "none" for template in own})
        if len(kinds) > 1:
            raise InputError(
                f"--teacher and --student: one has the template {kinds[0]} in its folder and the other {kinds[1]}; "
                "fix: give two with one, or neither"
            )
        return ("chat" if kinds[0] == "chat" else "alpaca"), None, f"both have the template {kinds[0]} in their folders"
    shape = None if not options.are_default else shape_of(row, "text" if pair.chat else "chat")
    whole = shape is not None and shape.startswith("prompt/") and isinstance(row["prompt"], str)
    if whole or "prompt" in (options.columns or ()):
        return "text", None, "the data holds whole prompts"
    if not pair.chat:
        return "chat", "chat", "both have a chat template"
    if options.messages is not None or shape in ("messages", "conversations") or (shape or "").startswith("prompt/"):
        raise InputError(
            f"--data: holds conversations, which need a chat template in both models, but {pair.chat}; "
            "fix: use models that have one, or data with instruction and output"
        )
    return "alpaca", "alpaca", pair.chat


# --- lengths ---


@dataclass(frozen=True)
class DraftedLengths:
    """max_length, the share of the sample that fits into it, the longest example, and means for estimates."""

    max_length: int
    kept: float
    longest: int
    sampled: int
    means: Lengths


def choose_lengths(data: DraftedData, pair: DraftedPair) -> DraftedLengths:
    """A max_length that keeps nearly all of the sample and that both models can read. InputError where nothing fits."""
    tokenizers = [_templated(model, data.template) for model in pair.models]
    sides = [[_length(tokenizer, item) for item in data.sample] for tokenizer in tokenizers]
    longest = [max(lengths) for lengths in zip(*[[whole for whole, _ in side] for side in sides], strict=True)]
    ordered = sorted(longest)
    wanted = ordered[math.ceil(_KEPT * len(ordered)) - 1]
    rooms = [model.positions for model in pair.models if model.positions is not None]
    max_length = min([math.ceil(wanted / _STEP) * _STEP, *rooms])
    kept = sum(length <= max_length for length in longest) / len(longest)
    if not kept:
        raise InputError(
            f"--data {data.given}: its examples have {ordered[0]} tokens or more, and the models read {max_length} at most; "
            "fix: give shorter examples, or models that read more"
        )
    fitting = [own for own, length in zip(sides[1], longest, strict=True) if length <= max_length]
    responses = sum(labels for _, labels in fitting) / len(fitting)
    prompts = sum(whole for whole, _ in fitting) / len(fitting) - responses
    means = Lengths(max(1, round(data.examples * kept)), prompts, responses)
    return DraftedLengths(max_length, kept, ordered[-1], len(longest), means)


def _templated(model: DraftedModel, template: str | None) -> Any:
    """The model's tokenizer, a copy with the template where it is given one."""
    if template is None:
        return model.tokenizer
    tokenizer = copy.deepcopy(model.tokenizer)
    set_template(tokenizer, Template.model_validate({"kind": template}))
    return tokenizer


def _length(tokenizer: Any, item: Item) -> tuple[int, int]:
    """(tokens of an example with its end, of these the labels); a conversation's are those of its whole text."""
    if isinstance(item, Conversation):
        whole = len(_rendered(tokenizer, item))
        asked = Conversation(tuple(message for message in item.messages if message.role != "assistant"), item.tools)
        return whole, max(1, whole - len(_rendered(tokenizer, asked)))
    labels = len(tokenizer(item.response, add_special_tokens=False)["input_ids"]) + 1
    return len(encode_prompt(tokenizer, prompt_text(tokenizer, item.prompt))) + labels, labels


def _rendered(tokenizer: Any, conversation: Conversation) -> Sequence[int]:
    row = as_row(conversation)
    text = tokenizer.apply_chat_template(row["messages"], tools=row.get("tools"), tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]
