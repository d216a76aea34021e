"""`harness data show`: what a training set holds, and its first examples as the models see them."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import click

from dskd import hub
from dskd.data.batch_encoding import Side
from dskd.data.examples import as_row
from dskd.data.options import Takes
from dskd.data.preparation import what_is_taken
from dskd.data.preview import rows_of_example, segments
from dskd.data.shapes import Item
from dskd.data.sources import rows_named
from dskd.data.survey import Survey, survey
from dskd.errors import InputError
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.prompt_templates import Template, set_template
from harness.cli.data_options import SOURCE, data_options, read_data_options
from harness.cli.options import COUNT, PATH, json_option, template_options, template_settings
from harness.cli.output import print_json
from harness.planning.single_training import read_template

EPILOG = """\b
Examples:
  harness data show train.jsonl
  harness data show chats.parquet --student models/student --teacher models/teacher --template chat
  harness data show openai/gsm8k:main:train --column "instruction={question}" --column "output={answer}" -n 1
  zcat big.jsonl.gz | head -n 1000 | harness data show - --json"""

_LONGEST = 1200  # characters of a text that are printed; `--json` has all


@click.command("show", epilog=EPILOG)
@click.argument("source", type=PATH, metavar=SOURCE)
@click.option("--student", type=PATH, metavar="DIR|ORG/NAME", help="Show the examples in this model's tokens.")
@click.option("--teacher", type=PATH, metavar="DIR|ORG/NAME", help="And in this model's.")
@template_options
@data_options
@click.option("-n", "count", default=3, show_default=True, type=click.IntRange(min=0), help="Examples to show.")
@click.option("--limit", type=COUNT, metavar="N", help="Read the first N rows.")
@json_option
def show(
    source: Path,
    student: Path | None,
    teacher: Path | None,
    count: int,
    limit: int | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Show what a training set holds, and its first examples.

    With models, as each of them sees an example in training: labels are green, or between brackets where there are no colours.
    """
    asked, options = read_template(template_settings(flags)), read_data_options(**flags)
    sides = {
        role: _side(folder, asked, f"--{role}")
        for role, folder in (("student", student), ("teacher", teacher))
        if folder
    }
    takes: Takes = "any" if asked is None else asked.kind
    if sides:
        takes = what_is_taken(*(side.tokenizer for side in sides.values()))
    found = survey(islice(rows_named(source), limit), takes, options, keep=count)
    if as_json:
        shown = [
            {"place": where, "row": as_row(item), "models": show_for_model(item, sides)} for where, item in found.first
        ]
        print_json(_counts(found) | {"first": shown})
        return
    click.echo(f"source        {source}")
    _print_counts(found)
    for number, (where, item) in enumerate(found.first, 1):
        click.echo(f"\n--- example {number} ({where})")
        _print_example(item)
        _print_seen(show_for_model(item, sides))


def _side(reference: Path, template: Template | None, where: str) -> Side:
    """A model's tokenizer, with the template that is asked for."""
    folder = hub.tokenizer_folder(reference, where=where)
    try:
        tokenizer = load_tokenizer(folder)
        if template is not None:
            set_template(tokenizer, template)
    except InputError as error:
        raise InputError(f"{where} {error}") from None
    return Side.of(tokenizer)


def show_for_model(item: Item, sides: dict[str, Side]) -> dict[str, Any]:
    """What each model sees of an example.

    Args:
        item: The example.
        sides: The models by their roles.

    Returns:
        By role, each row as a list of segments {"text", "tokens", "labels"}; and under `left_out` a list of {"reason", "detail"}, one for
        each turn that is not trained on.
    """
    if not sides:
        return {}
    rows, left_out = rows_of_example(item, list(sides.values()))
    seen = {
        role: [[vars(segment) for segment in segments(row, name, side)] for row in rows]
        for (role, side), name in zip(sides.items(), ("student", "teacher"), strict=False)
    }
    return {**seen, "left_out": [vars(each) for each in left_out]}


# --- in words ---


def _counts(found: Survey) -> dict[str, Any]:
    """What `--json` prints; its keys are part of the interface."""
    left_out = [
        {"reason": reason, "rows": count, "places": found.left_out.places[reason]}
        for reason, count in found.left_out.counts.items()
    ]
    counted = ("rows", "usable", "turns", "trained_turns", "with_system", "with_tools", "with_reasoning")
    counts = {name: getattr(found, name) for name in counted}
    return counts | {"columns": dict(found.columns), "shapes": dict(found.shapes), "left_out": left_out}


def _print_counts(found: Survey) -> None:
    shapes = ", ".join(f"{shape} ({count:,})" for shape, count in found.shapes.most_common())
    columns = (name if held == found.rows else f"{name} (in {held:,})" for name, held in found.columns.items())
    click.echo(f"columns       {plain(', '.join(columns))}")
    click.echo(f"shape         {shapes or 'none that can be used'}")
    click.echo(f"rows          {found.rows:,}, of which {found.usable:,} can be used")
    click.echo(f"responses     {found.turns:,}, of which {found.trained_turns:,} are trained on")
    for name in ("system", "tools", "reasoning"):
        if held := getattr(found, f"with_{name}"):
            click.echo(f"{f'with {name}':13} {held:,} rows")
    for reason, number in found.left_out.counts.items():
        click.echo(f"left out      {number:,}: {reason} ({', '.join(found.left_out.places[reason])})")


def _print_example(item: Item) -> None:
    row = as_row(item)
    for message in row.get("messages", ()):
        untrained = " (not trained on)" if message.get("train") is False else ""
        click.echo(f"{message['role']}{untrained}: {plain(message['content'])}")
        for key in ("reasoning_content", "tool_calls"):
            if message.get(key):
                click.echo(f"  {key}: {plain(str(message[key]))}")
    if "messages" not in row:
        for key, text in row.items():
            if text:
                click.echo(f"{key}: {plain(text)}")
    if row.get("tools"):
        click.echo(f"tools: {', '.join(tool['function']['name'] for tool in row['tools'])}")


def _print_seen(seen: dict[str, Any]) -> None:
    colours = sys.stdout.isatty()
    for role in [key for key in seen if key != "left_out"]:
        for row in seen[role]:
            tokens = sum(segment["tokens"] for segment in row)
            labels = sum(segment["tokens"] for segment in row if segment["labels"])
            click.echo(f"\nas the {role} sees it: {tokens:,} tokens, {labels:,} of them labels")
            texts = [(plain(segment["text"]), segment["labels"]) for segment in row]
            click.echo("".join(_marked(text, colours=colours) if labels else text for text, labels in texts))
    for (reason, detail), count in Counter(
        (each["reason"], each["detail"]) for each in seen.get("left_out", ())
    ).items():
        click.echo(f"\nleft out, {count:,} of its turns: {reason.replace('_', ' ')} ({detail})")


def _marked(text: str, *, colours: bool) -> str:
    return click.style(text, fg="green", bold=True) if colours else f"⟦{text}⟧"


def plain(text: str) -> str:
    """A text of the data's as a terminal may be given it: cut in its middle where it is long, and without control characters."""
    if len(text) > _LONGEST:
        half = _LONGEST // 2
        text = f"{text[:half]} … {len(text) - 2 * half:,} characters … {text[-half:]}"
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
