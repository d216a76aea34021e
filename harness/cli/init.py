"""`harness init`: two models and a training set to a matrix."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from dskd.data.options import DataOptions
from dskd.errors import InputError
from harness.cli.data_options import data_options, read_data_options
from harness.cli.options import PATH
from harness.cli.output import stages
from harness.cli.plan import print_estimate
from harness.draft.machine import look_at_machine
from harness.draft.matrix_text import Draft, assumed, disk_needed, matrix_text
from harness.draft.pair import fitting_methods, look_at_pair, with_template
from harness.draft.sample import choose_lengths, first_row, look_at_data
from harness.draft.tasks import tasks_here
from harness.draft.training import choose_training
from harness.planning.estimate import estimate
from harness.planning.plan import choose, make_plan
from harness.runs.store import require_writable, write_text_atomic
from harness.watching.text import duration

EPILOG = """\b
Examples:
  harness init
  harness init --teacher models/teacher --student models/student --data train.jsonl --yes
  harness init --teacher org/teacher --student org/student --data org/rows:train --output mine.yaml
  harness init --teacher t --student s --data q.jsonl --column "instruction={question}" --column "output={answer}"

\b
It reads the small files of the models and the data once. Nothing is trained, and no weights are loaded.
Each choice has its reason beside it: edit the file, then `harness plan --matrix FILE` and `harness run --matrix FILE`."""

POSITIVE = click.FloatRange(min=0, min_open=True)
YES = "Ask nothing: take what is suggested."


@click.command("init", epilog=EPILOG)
@click.option("--teacher", metavar="DIR|NAME", help="Teacher: a model folder, or org/name on the hub.")
@click.option("--student", metavar="DIR|NAME", help="Student: a model folder, or org/name on the hub.")
@click.option("--data", metavar="FILE|NAME", help="Training set: a file, a folder, or org/name:split on the hub.")
@data_options
@click.option("--epochs", type=POSITIVE, default=3.0, show_default=True, metavar="X", help="Passes over the data.")
@click.option("--output", type=PATH, default="matrix.yaml", show_default=True, metavar="FILE", help="Matrix to write.")
@click.option("--yes", is_flag=True, help=YES)
def command(
    teacher: str | None,
    student: str | None,
    data: str | None,
    epochs: float,
    output: Path,
    yes: bool,
    **reading: Any,
) -> None:
    """Write a matrix for two models and a training set, with the methods, lengths, batch size and tasks that fit."""
    if output.exists():
        raise InputError(f"--output {output}: exists; fix: name a new file, or remove it")
    require_writable(output.resolve().parent, f"--output {output}")
    teacher = teacher or _asked("--teacher", "Teacher (folder, or org/name on the hub)", yes)
    student = student or _asked("--student", "Student (folder, or org/name on the hub)", yes)
    data = data or _asked("--data", "Training set (file, folder, or org/name:split on the hub)", yes)
    draft = _draft(teacher, student, data, read_data_options(**reading), epochs, output, yes=yes)
    if not yes:
        draft = _chosen(draft)
    write_text_atomic(output, matrix_text(draft))
    try:
        _print_plan(draft, output)
    except BaseException:  # a matrix that does not pass is not left behind
        output.unlink(missing_ok=True)
        raise


def _asked(option: str, question: str, yes: bool) -> str:
    if yes:
        raise InputError(f"{option}: is missing; fix: give it, or leave out --yes to be asked")
    try:
        return str(click.prompt(question, err=True)).strip()
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)
        raise InputError(f"{option}: is missing, and there is nobody to ask; fix: give it") from None


def _draft(
    teacher: str, student: str, data: str, options: DataOptions, epochs: float, output: Path, *, yes: bool
) -> Draft:
    """Look at models, data and machine, and choose."""
    with stages() as stage:
        with stage("reading models", 1) as advance:
            pair = look_at_pair(teacher, student)
            advance(1)
        options = options if yes or not options.are_default else _mapping(data)
        with stage("reading data", 1) as advance:
            training_set = look_at_data(data, pair, options)
            pair = with_template(pair, training_set.template)
            lengths = choose_lengths(training_set, pair)
            advance(1)
        with stage("looking at this machine", 1) as advance:
            machine = look_at_machine(output.resolve().parent)
            training = choose_training(pair, lengths, machine, epochs)
            templates = training_set.template is not None or pair.student.template is not None
            found = tasks_here(training_set, templates=templates, on_gpu=machine.has_gpu)
            advance(1)
    fitting = fitting_methods(pair, training.teacher_outputs)
    name = re.sub(r"[^A-Za-z0-9]+", "-", output.stem).strip("-") or "matrix"
    return Draft(
        name, pair, training_set, lengths, training, machine, fitting, fitting.suggested, found, seeds=(1, 2, 3)
    )


def _mapping(data: str) -> DataOptions:
    """How rows of no known shape are read: asked, where somebody can be."""
    from dskd.data.shapes import shape_of

    row = first_row(data)
    if shape_of(row, "any") is not None:
        return DataOptions()
    click.echo(f"The rows have the columns {', '.join(map(str, row))}. What are they made into?", err=True)
    try:
        asked = click.prompt("Instruction, such as {question}", err=True)
        answer = click.prompt("Response, such as {answer}", err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        return DataOptions()  # reading the data says what is wrong with it
    return read_data_options((f"instruction={asked}", f"output={answer}"))


def _chosen(draft: Draft) -> Draft:
    """What a user takes of the suggestions."""
    fitting = [*draft.fitting.suggested, *draft.fitting.others]
    tasks = [task.name for task in draft.tasks]
    methods = _several("Methods", draft.methods, fitting)
    evaluated = _several("Tasks", tasks, tasks) if tasks else []
    seeds = _prompt("Seeds (how many)", len(draft.seeds), type=click.IntRange(min=1))
    return draft.with_choices(methods, evaluated, range(1, seeds + 1))


def _several(what: str, suggested: Sequence[str], known: Sequence[str]) -> list[str]:
    def names(text: str) -> list[str]:
        given = [name for name in re.split(r"[,\s]+", text) if name]
        for name in given:
            if name not in known:
                raise click.BadParameter(f"{name} is not one of {', '.join(known)}")
        return list(dict.fromkeys(given))

    found = _prompt(what, ", ".join(suggested), value_proc=names)
    return found if isinstance(found, list) else list(suggested)


def _prompt(question: str, default: Any, **settings: Any) -> Any:
    """The answer to a question; the default where there is nobody to ask."""
    try:
        return click.prompt(question, default=default, err=True, **settings)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        return default


def _print_plan(draft: Draft, output: Path) -> None:
    """Check the matrix as `harness plan` does, and print what it would take."""
    name = str(output)
    with stages() as stage, stage("checking the matrix", 1) as advance:
        plan = make_plan(name)
        advance(1)
    choice = choose(name)
    click.echo(f"Matrix: {output} ({len(choice.cells)} cells, {len(plan.to_run)} jobs)")
    try:
        estimated = estimate(choice.matrix, choice.cells, draft.machine.assumed, name)
        print_estimate(estimated, assumed(draft.machine))
        hours = sum(work.gpu_hours for work in estimated.work)
        click.echo(f"Time: about {duration(3600 * hours)} for the trainings on this machine, evaluation not counted")
    except InputError as error:
        click.echo(f"No estimate: {error}")
    click.echo(disk_needed(draft) or "Disk: not estimated")
    if not draft.training.fits:
        click.echo("warning: a training does not fit into this machine's memory by estimate; see `training`", err=True)
    click.echo(f"Next: harness plan --matrix {output}; harness run --matrix {output}")
