"""`harness list`: what there is to choose from."""

from __future__ import annotations

from typing import Any

import click

from harness.cli.options import variables

EPILOG = """\b
Examples:
  harness list tasks
  harness list methods
  harness list models --matrix quick
  harness list matrices
  harness list protocols
  harness list published
  harness list defects"""


@click.command("list", epilog=EPILOG)
@click.argument(
    "what", type=click.Choice(["tasks", "methods", "models", "matrices", "protocols", "published", "defects"])
)
@click.option("--matrix", "matrix_name", default="quick", show_default=True, help="Whose models to list.")
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="A variable of the matrix; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def command(what: str, matrix_name: str, assignments: tuple[str, ...], as_json: bool) -> None:
    """List tasks, methods, models of a matrix, matrices that ship, protocols, published numbers, or upstream's defects."""
    rows = {
        "tasks": _tasks,
        "methods": _methods,
        "models": lambda: _models(matrix_name, assignments),
        "matrices": _matrices,
        "protocols": _protocols,
        "published": _published,
        "defects": _defects,
    }[what]()
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from harness.cli.output import print_table

    print_table(list(rows[0]), ([_text(value) for value in row.values()] for row in rows))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _tasks() -> list[dict[str, Any]]:
    from harness import tasks

    return [
        {
            "task": task.name,
            "version": task.version,
            "metrics": [metric.name for metric in task.metrics],
            "max_new_tokens": task.max_new_tokens,
            "runs_code": task.runs_code,
        }
        for task in map(tasks.load, tasks.names())
    ]


def _methods() -> list[dict[str, Any]]:
    from dskd.methods import METHODS

    return [
        {
            "method": name,
            "title": method.title,
            "paper": method.paper,
            "vocabulary": method.requires.vocabulary,
            "on_policy": method.requires.on_policy,
            "needs_teacher": method.requires.teacher,
            "signals": list(method.requires.teacher_outputs) if method.requires.teacher else [],
            "status": method.not_reproduced or "as in the paper",
            "options": [f"{option}={field.default}" for option, field in method.Options.model_fields.items()],
        }
        for name, method in METHODS.items()
    ]


def _models(matrix_name: str, assignments: tuple[str, ...]) -> list[dict[str, Any]]:
    from harness.config.matrix import FirstLayersModel, PathModel
    from harness.config.matrix_file import find_matrix, read_matrix

    matrix = read_matrix(find_matrix(matrix_name), variables(assignments))
    rows = []
    for name, model in matrix.models.items():
        if isinstance(model, PathModel):
            what = model.path
        elif isinstance(model, FirstLayersModel):
            what = f"first {model.layers} layers of {model.layers_of}"
        else:
            what = f"new {model.config['model_type']}"
        stages = [] if isinstance(model, PathModel) else [stage.data for stage in model.training]
        teaches = [pair.student for pair in matrix.pairs if pair.teacher == name]
        learns = [pair.teacher for pair in matrix.pairs if pair.student == name]
        rows.append({"model": name, "what": what, "trained_on": stages, "teaches": teaches, "learns_from": learns})
    return rows


def _matrices() -> list[dict[str, Any]]:
    import yaml

    from harness.config.matrix_file import shipped_matrices

    rows = []
    for name, path in shipped_matrices().items():
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        rows.append({"matrix": name, "description": " ".join(str(content.get("description", "")).split())})
    return rows


def _protocols() -> list[dict[str, Any]]:
    from harness.protocols import PROTOCOLS

    return [
        {"protocol": name, **{key: value for key, value in protocol.settings.items() if key != "name"}}
        for name, protocol in PROTOCOLS.items()
    ]


def _published() -> list[dict[str, Any]]:
    from harness.published import published_tables

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


def _defects() -> list[dict[str, Any]]:
    from dskd.upstream.defects import CODE_BASES, DEFECTS

    return [
        {"defect": name, "what": what, "code bases": [code for code, own in CODE_BASES.items() if name in own]}
        for name, what in DEFECTS.items()
    ]
