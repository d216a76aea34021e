"""A training set as a draft needs it: how its rows are read, how many there are, and how long a sample of them is in both models' tokens."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as compute

from dskd.data.examples import LeftOut, as_row, examples_in
from dskd.data.formats import Row
from dskd.data.hub_rows import parse_hub_data
from dskd.data.options import DataOptions, Takes
from dskd.data.preparation import PreparationReport, prepare_dataset
from dskd.data.prepared_part import REASONS
from dskd.data.reading import is_pipe
from dskd.data.shapes import Example, Item, shape_of
from dskd.data.sources import rows_named
from dskd.errors import InputError
from dskd.io import write_lines_atomic
from harness.costs.formulas import Lengths
from harness.draft.pair import DraftedPair
from harness.planning.checks import COMPARED

SAMPLE = 1000
_STEP = 64  # max_length is a multiple
_KEPT = 0.99
_ANY_LENGTH = 2**31 - 1


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
    # As a run does: in a file of the user's own, a text that is missing is a mistake to correct.
    left_out, generator = LeftOut(strict=parse_hub_data(given) is None), random.Random(0)
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
    if is_pipe(Path(given)):
        raise InputError(f"{given}: is a pipe, which a matrix cannot name; fix: write it into a file, and give that")
    yield from rows_named(given)


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
    """How long examples are in the longer of both tokenizations.

    Attributes:
        max_length: That is suggested.
        kept: The share of the sample that fits into it.
        longest: Tokens of the longest example.
        sampled: Examples that were looked at.
        left_out: What of them cannot be used in these models' tokens, by reason.
        room: The most tokens that one of the models reads, where that is less than the longest example.
        means: For estimates.
    """

    max_length: int
    kept: float
    longest: int
    sampled: int
    left_out: dict[str, int]
    room: int | None
    means: Lengths


def choose_lengths(data: DraftedData, pair: DraftedPair) -> DraftedLengths:
    """A max_length that keeps nearly all of a sample and that both models can read; the sample is prepared as a run prepares it.

    Args:
        data: The training set.
        pair: The models with their templates.

    Raises:
        InputError: Where no example of it can be used.
    """
    columns, report = _prepared(data, pair)
    sides = [compute.list_value_length(columns[f"{side}_ids"]).to_numpy() for side in ("student", "teacher")]
    lengths = np.maximum(*sides)
    rooms = [model.positions for model in pair.models if model.positions is not None]
    wanted = math.ceil(np.quantile(lengths, _KEPT, method="higher") / _STEP) * _STEP
    max_length = min([wanted, *rooms])
    fit = lengths <= max_length
    if not fit.any():
        raise InputError(
            f"--data {data.given}: its examples have {lengths.min()} tokens or more, and the models read {max_length} at most; "
            "fix: give shorter examples, or models that read more"
        )
    labels = compute.list_value_length(columns["student_groups"]).to_numpy()[fit].mean()
    usable = len(lengths) / len(data.sample) * fit.mean()
    left_out = {reason: count for reason in REASONS if (count := getattr(report, reason))}
    return DraftedLengths(
        max_length=max_length,
        kept=float(fit.mean()),
        longest=int(lengths.max()),
        sampled=len(data.sample),
        left_out=left_out,
        room=max_length if max_length < wanted else None,
        means=Lengths(max(1, round(data.examples * usable)), float(sides[0][fit].mean() - labels), float(labels)),
    )


def _prepared(data: DraftedData, pair: DraftedPair) -> tuple[Any, PreparationReport]:
    """The sample in the tokens of both models, whatever its length, as Arrow columns; and what became of it."""
    import datasets

    with tempfile.TemporaryDirectory(prefix="harness-init-") as scratch:
        rows, made = Path(scratch) / "sample.jsonl", Path(scratch) / "data"
        write_lines_atomic(rows, map(as_row, data.sample))
        folders = {}
        for side, model in zip(("teacher", "student"), pair.models, strict=True):
            folders[side] = Path(scratch) / side
            model.tokenizer.save_pretrained(folders[side])
        try:
            report = prepare_dataset(
                rows, made, student=folders["student"], teacher=folders["teacher"], max_length=_ANY_LENGTH, workers=1
            )
        except InputError as error:
            raise InputError(f"--data {str(error).replace(str(rows), data.given)}") from None
        return datasets.load_from_disk(str(made)).with_format("arrow")[:], report
