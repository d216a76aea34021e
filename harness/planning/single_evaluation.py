"""The evaluation of one model folder outside a matrix, planned as the smallest matrix there is: of it only the teacher is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dskd.errors import InputError
from harness import tasks as known_tasks
from harness.config.matrix import TEACHER_METHOD, Cell, Matrix
from harness.planning.graph import GraphBuilder
from harness.planning.plan import Plan, decide
from harness.runs.identity import FileHashes, differences
from harness.runs.store import Store, eval_folder

_UNFIT = re.compile(r"[^A-Za-z0-9]+")


def evaluation_plan(
    *,
    model: Path,
    name: str | None,
    tasks: Sequence[str],
    limit: int | None,
    max_new_tokens: int | None,
    protocol: str,
    evaluation: Mapping[str, Any],
    add_bos_token: bool,
    template: Mapping[str, Any],
    output: Path,
    allow_code_execution: bool,
    overwrite: bool = False,
) -> Plan:
    """The plan of evaluating a model on tasks, with its records where a run has those of a teacher called `name`.

    `evaluation` and `template` are those parts of a matrix. InputError for what is wrong with any option, and where `output` holds
    another evaluation of that name and task already, unless `overwrite`.
    """
    for task in tasks:
        known_tasks.load(task)
    hashes = FileHashes()
    try:
        hashes.model_folder(model)
        hashes.tokenizer_folder(model)
    except InputError as error:
        raise InputError(f"--model {model}: {error}") from None
    called = name or _UNFIT.sub("-", model.resolve().name).strip("-")
    source: dict[str, Any] = {"path": str(model), "add_bos_token": add_bos_token}
    if template:
        if "system" in template and template.get("kind") != "chat":
            raise InputError("--system goes with --template chat; add it, or leave out --system")
        source["template"] = dict(template)
    try:
        matrix = Matrix.model_validate(
            {
                "schema_version": 1,
                "name": "evaluate",
                # Nothing is trained: data, pair and training are there because a matrix has them.
                "data": {"none": {"small_world": "student"}},
                "models": {called: source},
                "pairs": [{"teacher": called, "student": called, "methods": ["sft"]}],
                "training": {"data": "none", "steps": 1},
                "seeds": [0],
                "tasks": {
                    task: {"limit": limit, "max_new_tokens": max_new_tokens, "protocol": protocol} for task in tasks
                },
                "evaluation": dict(evaluation),
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        if "models" in first["loc"] and called in first["loc"]:
            raise InputError(f"--name {called}: is no name; use letters, digits, dots and hyphens") from None
        raise
    cell = Cell(called, None, TEACHER_METHOD, None)
    settings = matrix.evaluation
    builder = GraphBuilder(
        matrix,
        "harness evaluate",
        output,
        engine=settings.engine,
        allow_code_execution=allow_code_execution,
        hashes=hashes,
    )
    graph = builder.build([cell], list(dict.fromkeys(tasks)))
    store = Store(output)
    for node in graph.values():
        for made in node.spec.outputs:
            manifest = store.output(made.folder).manifest
            if overwrite or made.cell is None or manifest is None or manifest.identity.hash == made.identity.hash:
                continue
            changed = differences(manifest.identity.parts, made.identity.parts)
            raise InputError(
                f"{output / made.folder}: holds another evaluation ({changed[0]}); give another --name or --output-dir, "
                "or --overwrite"
            )
    return Plan(matrix, Path("harness evaluate"), output, decide(graph, store, "stale"))


def record_folders(plan: Plan) -> dict[str, Path]:
    """The folder of each task's record, in the order in which the tasks were asked for."""
    ((name, _),) = plan.matrix.models.items()
    cell = Cell(name, None, TEACHER_METHOD, None)
    folders = {}
    for entry in plan.matrix.tasks:
        task = known_tasks.load(plan.matrix.task_of(entry))
        protocol = plan.matrix.protocol_of(entry, task.max_new_tokens)
        folders[entry] = plan.root / eval_folder(cell.folder, entry, task.version, protocol.name)
    return folders
