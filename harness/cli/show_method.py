"""`harness show-method`: what a method needs and can learn from, where it is from, and its options."""

from __future__ import annotations

from typing import Any

import click

from dskd.compatibility import learning_of, texts_of
from dskd.methods import Method, Requirements
from dskd.rollouts.options import RolloutOptions
from dskd.training.options import TrainingOptions
from harness.cli.options import json_option
from harness.cli.output import print_json, print_table, text
from harness.config.names import find_method, option_rows

EPILOG = """\b
Examples:
  harness show-method dskd-v2-eta
  harness show-method my_method.py:MyMethod
  harness show-method kd --json"""


@click.command("show-method", epilog=EPILOG)
@click.argument("name", metavar="NAME|FILE.py:CLASS")
@json_option
def command(name: str, as_json: bool) -> None:
    """Show a method: paper, vocabularies, what it can learn from, each option with default, range and meaning, and what is tuned."""
    described = describe(find_method(name, "NAME"))
    if as_json:
        print_json(described)
        return
    options, learns_from = described.pop("options"), described.pop("learns_from")
    space = described.pop("space")
    for key, value in described.items():
        click.echo(f"{key.replace('_', ' '):17}{text(value)}")
    for number, row in enumerate(learns_from):
        click.echo(f"{'' if number else 'learns from':17}{row['outputs']}: {text(row['from'])}{_if(row['with'])}")
    if options:
        click.echo()
        print_table(list(options[0]), ([text(value) for value in row.values()] for row in options))
    click.echo()
    print_table(("tuned", "over"), ((row["option"], row["over"]) for row in space))


def _if(options: str) -> str:
    return f", with {options}" if options else ""


def _also_read(requires: Requirements) -> list[str]:
    """What a method reads beside the text, the teacher and the student as it is."""
    written = requires.written_statistics != "none"
    return [
        *(["a reference model"] if requires.reference else []),
        *(["log-probabilities by the weights that wrote a text"] if written else []),
    ]


def describe(method: type[Method]) -> dict[str, Any]:
    """All that there is to know of a method before it runs."""
    return {
        "method": method.name,
        "title": method.title,
        "paper": method.paper,
        "vocabularies": {"same": "one", "any": "any two"}[method.requires.vocabulary],
        "on_policy": method.requires.on_policy,
        "text": texts_of(method),
        "learns_from": [
            {"outputs": learning.kind, "from": list(learning.sources), "with": learning.options}
            for learning in learning_of(method.requires)
        ],
        "also_reads": _also_read(method.requires),
        "response_source": method.requires.response_source,
        "status": f"not reproduced: {method.not_reproduced}" if method.not_reproduced else "as in the paper",
        "options": list(option_rows(method.Options)),
        "space": space_of(method),
    }


def space_of(method: type[Method]) -> list[dict[str, Any]]:
    """What of a method is tuned unless a matrix says otherwise: each option with its default and its range, its own options first."""
    made = method()
    rows = (*option_rows(TrainingOptions), *option_rows(RolloutOptions, ["rollouts"]))
    defaults = {f"training.{row['option']}": row["default"] for row in rows} | made.options.model_dump()
    ordered = sorted(made.whole_space.items(), key=lambda item: item[0].startswith("training."))
    return [{"option": name, "default": defaults[name], "over": values.text} for name, values in ordered]
