"""`harness list`: what there is to choose from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import yaml

from dskd.methods import METHODS
from dskd.training.options import TrainingOptions
from harness import tasks
from harness.cli.options import json_option, variables_option
from harness.cli.output import print_json, print_table, text
from harness.cli.show_method import describe, space_of
from harness.config.matrix import Matrix
from harness.config.matrix_file import find_matrix, read_matrix, shipped_matrices
from harness.config.names import option_rows
from harness.config.served import ServedSource, TeachersSource
from harness.config.sources import FinishedModel, FirstLayersModel, StepModel
from harness.executors import EXECUTORS
from harness.protocols import PROTOCOLS, DecodingProtocol
from harness.published import published_tables

EPILOG = """\b
Examples:
  harness list tasks
  harness list methods
  harness list spaces
  harness list training-options
  harness list models --matrix quick
  harness list matrices
  harness list protocols --json
  harness list published
  harness list executors

\b
`harness show-method NAME` has a method's paper, what it can learn from, and its options."""

Row = dict[str, Any]
WHAT = ["tasks", "methods", "spaces", "training-options", "models", "matrices", "protocols", "published", "executors"]


@click.command("list", epilog=EPILOG)
@click.argument("what", type=click.Choice(WHAT))
@click.option("--matrix", "matrix_name", default="quick", show_default=True, help="The matrix whose models to list.")
@variables_option
@json_option
def command(what: str, matrix_name: str, variables: dict[str, str], as_json: bool) -> None:
    """List tasks, methods, what of each is tuned, training options, models of a matrix, shipped matrices, protocols, published scores or executors."""
    rows = _models(read_matrix(find_matrix(matrix_name), variables)) if what == "models" else _ROWS[what]()
    if as_json:
        print_json(rows)
        return
    essentials = [_ESSENTIALS.get(what, dict)(row) for row in rows]
    print_table(list(essentials[0]), ([text(value) for value in row.values()] for row in essentials))
    if what == "tasks":
        click.echo()
        print_table(("settings are chosen by", "tasks"), _by_validation(rows))
    if what == "methods":
        click.echo()
        print_table(("learns from", "given by", "methods"), _learners(rows))
        click.echo()
        print_table(("text of", "methods"), _by_text(rows))


def _learners(rows: list[Row]) -> list[tuple[str, str, str]]:
    """Each kind of teacher outputs with its sources, and the methods that can learn from these, some with options alone."""
    able: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for kind in row["learns_from"]:
            name = f"{row['method']} (with {kind['with']})" if kind["with"] else row["method"]
            able.setdefault((kind["outputs"], text(kind["from"])), []).append(name)
    return [(*kind, ", ".join(names)) for kind, names in sorted(able.items())]


def _by_validation(rows: list[Row]) -> list[tuple[str, str]]:
    """What settings are chosen by, and the tasks that have it: validation items of their own, or those of another."""
    able: dict[str, list[str]] = {}
    for row in rows:
        other = row["validation_from"]
        text = row["validation"] or (f"the validation items of {other}" if other else "no validation items")
        able.setdefault(text, []).append(row["task"])
    return [(items, ", ".join(names)) for items, names in able.items()]


def _by_text(rows: list[Row]) -> list[tuple[str, str]]:
    """Those who may write the text, and the methods that can be trained on it (`text` of a matrix)."""
    able: dict[str, list[str]] = {}
    for row in rows:
        able.setdefault(text(row["text"]), []).append(row["method"])
    return [(authors, ", ".join(names)) for authors, names in able.items()]


def _tasks() -> list[Row]:
    return [
        {
            "task": task.name,
            "version": task.version,
            "metrics": [metric.name for metric in task.metrics],
            "max_new_tokens": task.max_new_tokens,
            "runs_code": task.runs_code,
            "licence": task.licence,
            "validation": task.validation,
            "validation_from": task.validation_from,
        }
        for task in map(tasks.load, tasks.names())
    ]


def _models(matrix: Matrix) -> list[Row]:
    rows = []
    for name, model in matrix.models.items():
        if isinstance(model, FinishedModel):
            what = str(model.place)
        elif isinstance(model, FirstLayersModel):
            what = f"first {model.layers} layers of {model.layers_of}"
        elif isinstance(model, StepModel):
            what = f"made by {model.step}"
        elif isinstance(model, ServedSource):
            what = f"behind {', '.join(dict.fromkeys((*model.served, *model.completions, *model.chat)))}"
        elif isinstance(model, TeachersSource):
            parts = [f"{each} {model.weights[each]:g}" if model.weights else each for each in model.names]
            what = f"teachers {', '.join(parts)}" + (f" by column {model.route}" if model.route else "")
        else:
            what = f"new {model.config['model_type']}"
        stages = [stage.data for stage in model.training]
        teaches = [pair.student for pair in matrix.pairs if name in {pair.teacher, *matrix.members(pair.teacher)}]
        learns = [pair.teacher for pair in matrix.pairs if pair.student == name]
        rows.append({"model": name, "what": what, "trained_on": stages, "teaches": teaches, "learns_from": learns})
    return rows


def _matrices() -> list[Row]:
    descriptions = {
        name: yaml.safe_load(path.read_text(encoding="utf-8")).get("description", "")
        for name, path in shipped_matrices().items()
    }
    return [{"matrix": name, "description": " ".join(said.split())} for name, said in descriptions.items()]


def _protocols() -> list[Row]:
    every = {name: field.default for name, field in DecodingProtocol.model_fields.items()}
    settings = [(name, every | protocol.settings) for name, protocol in PROTOCOLS.items()]
    return [{"protocol": name} | {key: value for key, value in row.items() if key != "name"} for name, row in settings]


def _changed_settings(row: Row) -> Row:
    """A protocol's settings that are not the default."""
    defaults = {name: field.default for name, field in DecodingProtocol.model_fields.items()}
    changed = {key: value for key, value in row.items() if key != "protocol" and value != defaults[key]}
    shown = "; ".join(f"{key} {text(value)}" for key, value in changed.items())
    return {"protocol": row["protocol"], "settings": shown or "the most probable token; lengths of the task"}


def _published() -> list[Row]:
    return [
        {
            "teacher": table.teacher,
            "student": table.student,
            "columns": table.columns,
            "methods": list(table.values),
            "source": table.source,
            "read in": table.read_in,
        }
        for table in published_tables()
    ]


def _executors() -> list[Row]:
    """Each executor with its options; one without options has a row all the same."""
    rows = []
    for name in EXECUTORS.names():
        kind = EXECUTORS.load(name)
        own = list(option_rows(kind.Options)) or [{"option": "", "default": "", "range": "", "meaning": ""}]
        rows += [{"executor": name} | row for row in own]
    return rows


def _columns(*names: str) -> Callable[[Row], Row]:
    return lambda row: {name: row[name] for name in names}


_ROWS: dict[str, Callable[[], list[Row]]] = {
    "tasks": _tasks,
    "methods": lambda: [describe(method) for method in METHODS.values()],
    "spaces": lambda: [{"method": name} | row for name, method in METHODS.items() for row in space_of(method)],
    "training-options": lambda: list(option_rows(TrainingOptions)),
    "matrices": _matrices,
    "protocols": _protocols,
    "published": _published,
    "executors": _executors,
}
# What of a row fits a terminal of 100 columns.
_ESSENTIALS: dict[str, Callable[[Row], Row]] = {
    "tasks": _columns("task", "version", "metrics", "max_new_tokens", "licence"),
    "methods": _columns("method", "title", "vocabularies", "on_policy"),
    "matrices": lambda row: {"matrix": row["matrix"], "description": row["description"].partition(". ")[0]},
    "protocols": _changed_settings,
    "published": _columns("teacher", "student", "columns", "source"),
}
