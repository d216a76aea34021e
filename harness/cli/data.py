"""`harness data`: the data files of tasks, training data, and what the two share."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import click

from dskd.errors import InputError
from harness import tasks
from harness.cli.data_options import SOURCE, read_data_options, row_options
from harness.cli.data_show import show
from harness.cli.options import COUNT, PATH, json_option
from harness.cli.output import print_json, print_table
from harness.evaluation.contamination import find_contamination, items_of, training_examples
from harness.tasks.data_files import DataFile
from harness.tasks.task import Task

EPILOG = """\b
Examples:
  harness data verify
  harness data verify gsm8k dolly --json
  harness data pull gsm8k gsm8k:validation
  harness data show train.jsonl --student models/student
  harness data contamination --train dolly/train.jsonl --task dolly
  harness data contamination --train gsm8k/train.jsonl --prompt "Question: {question}" --output "{answer}" --task gsm8k --json

\b
The files lie in the folder that HARNESS_DATA names (docs/data.md)."""


@click.group("data", epilog=EPILOG)
def command() -> None:
    """Check and fetch the data files of tasks; show training data, and compare the two."""


@command.command("verify", epilog=EPILOG)
@click.argument("names", nargs=-1, metavar="[TASK]...")
@click.option("--all-present", is_flag=True, help="Absent files count as mistakes too, not only those of tasks named.")
@json_option
def verify(names: tuple[str, ...], all_present: bool, as_json: bool) -> None:
    """Check the data files of tasks, of all unless named: is each there, and the one that the task was made with?

    Exits with 2 for a wrong file, and for an absent one of a task that was named or with --all-present. Nothing is fetched.
    """
    chosen = _with_validation(names)
    rows = [row for task in chosen for row in _rows(task)]
    if as_json:
        print_json(rows)
    else:
        shown = ["task", "status", "checked by", "bytes", "sha256", "path", "hub"]
        print_table(shown, ([_text(row[name.replace(" ", "_")]) for name in shown] for row in rows))
    bad = [row for row in rows if row["status"] == "wrong"]
    if names or all_present:
        bad += [row for row in rows if row["status"] == "absent"]
    if bad:
        told = "; ".join(f"{row['path']} ({row['task']}): {row['reason'] or 'no such file'}" for row in bad)
        raise InputError(f"{told}; fix: put the original file there, or see `harness data pull --help`")


@command.command("pull", epilog=EPILOG)
@click.argument("names", nargs=-1, metavar="[TASK]...")
@click.option("--all", "everything", is_flag=True, help="Every task whose rows are on the hub.")
def pull(names: tuple[str, ...], everything: bool) -> None:
    """Fetch the rows of tasks from the hub into the folder that HARNESS_DATA names; what is there and right stays.

    The rows are checked before the file is put in its place. Only this command and HARNESS_HUB=1 ever ask the hub.
    """
    if bool(names) == everything:
        raise InputError("data pull: names no task; fix: name tasks, or give --all (see `harness data verify`)")
    files = [(task, data) for task in _with_validation(names) for data in (*task.data_files,) or (None,)]
    told = set()  # the 27 files of bbh have one reason
    for task, data in files:
        if data is None or (everything and data.hub is None):
            reason = "its items are generated" if data is None else "no source on the hub is known (docs/data.md)"
            if everything and data is not None and data.check().status == "right":
                reason = "here already"
            if (task.name, reason) not in told:
                click.echo(f"{task.name}: nothing to fetch, {reason}", err=True)
            told.add((task.name, reason))
            continue
        path = data.pull()
        click.echo(f"{task.name}: {'here already' if path is None else path}", err=path is None)


@command.command("contamination", epilog=EPILOG)
@click.option("--train", required=True, type=PATH, metavar=SOURCE, help="The training set (docs/data-sources.md).")
@click.option("--task", "names", required=True, multiple=True, metavar="TASK", help="Whose test items; repeatable.")
@click.option("--prompt", metavar="TEMPLATE", help="What a prompt is made of, where no column is called that.")
@click.option("--instruction", metavar="TEMPLATE", help="Instead of --prompt, for models with a template.")
@click.option("--input", metavar="TEMPLATE", help="What goes with --instruction.")
@click.option("--output", metavar="TEMPLATE", help="What an output is made of, where no column is called that.")
@row_options
@click.option("--limit", type=COUNT, metavar="N", help="Read the first N examples.")
@click.option("--n", "n", type=COUNT, default=13, show_default=True, help="Words in a row.")
@json_option
def contamination(
    train: Path,
    names: tuple[str, ...],
    columns: Sequence[str],
    limit: int | None,
    n: int,
    as_json: bool,
    **options: str | None,
) -> None:
    """Look for the test items of tasks in a training set: whole questions, and N words in a row (docs/data.md)."""
    made_of = read_data_options(columns, **options)
    docs = {task.name: task.docs() for task in _tasks(names)}
    items = {task.name: items_of(task, docs[task.name]) for task in _tasks(names)}
    found = find_contamination(items, training_examples(train, made_of, limit), n)
    kinds = ("exact", "exact_with_answer", "ngram")
    rows = [
        {"task": name, "items": each.items, "examples": each.examples, "n": n, "short": each.short}
        | {kind: len(getattr(each, kind)) for kind in kinds}
        | {"ids": {kind: [docs[name][place]["id"] for place in sorted(getattr(each, kind))] for kind in kinds}}
        for name, each in found.items()
    ]
    if as_json:
        print_json(rows)
        return
    header = ["task", "items", "examples", "question", "question and answer", f"{n} words in a row", f"under {n} words"]
    shown = ("task", "items", "examples", *kinds, "short")
    print_table(header, ([_text(row[name]) for name in shown] for row in rows))


command.add_command(show)
# The name that it had before.
command.add_command(copy(contamination), "overlap")
command.commands["overlap"].hidden = True


def _tasks(names: Sequence[str]) -> list[Task]:
    return [tasks.load(name) for name in names or tasks.names()]


def _with_validation(names: Sequence[str]) -> list[Task]:
    """The tasks named; where none is, all, each followed by its validation items where these are in a file of their own."""
    if names:
        return _tasks(names)
    found = []
    for task in _tasks(()):
        found.append(task)
        if task.validation_data is not None:
            found.append(tasks.load(f"{task.name}:validation"))
    return found


def _rows(task: Task) -> list[dict[str, Any]]:
    """What `verify --json` says of one task, a row a file; its keys are part of the interface."""
    if task.data_files:
        return [_row(task.name, data) for data in task.data_files]
    empty = ("checked_by", "path", "bytes", "expected_bytes", "sha256", "expected_sha256", "hub", "reason")
    return [{"task": task.name, "status": "generated", **dict.fromkeys(empty)}]


def _row(name: str, data: DataFile) -> dict[str, Any]:
    check = data.check()
    hub = data.hub
    return {
        "task": name,
        "status": "present" if check.status == "right" else check.status,
        "checked_by": check.by,
        "path": check.path,
        "bytes": check.size,
        "expected_bytes": data.size,
        "sha256": check.sha256,
        "expected_sha256": data.sha256,
        "hub": hub and f"{hub.repository}, {f'revision {hub.revision}' if hub.revision else 'revision not pinned'}",
        "reason": check.reason,
    }


def _text(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "–" if value is None else str(value)
