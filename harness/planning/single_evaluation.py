"""The evaluation of one model folder outside a matrix, with its records where a run has those of a teacher."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from dskd import hub
from dskd.errors import InputError
from harness.config.cells import TEACHER_METHOD, Cell
from harness.config.settings import Evaluation
from harness.config.sources import Name
from harness.planning.checks import check_chat
from harness.planning.evaluated import evaluated_task
from harness.planning.plan import Plan, decide
from harness.planning.single_training import called, read_template
from harness.protocols import PROTOCOLS
from harness.runs.hub_lock import HubLock
from harness.runs.identity import FileHashes, differences
from harness.runs.records import RecordCell
from harness.runs.store import Store
from harness.steps.base_model import model_in_folder
from harness.steps.evaluation import Evaluate

_UNFIT = re.compile(r"[^A-Za-z0-9]+")


def evaluation_plan(
    *,
    model: Path,
    name: str | None,
    tasks: Sequence[str],
    limit: int | None,
    max_new_tokens: int | None,
    max_reasoning_tokens: int | None = None,
    reasoning_end: Literal["cut", "close"] | None = None,
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
    known_as = name or _UNFIT.sub("-", called(model)).strip("-")
    try:
        TypeAdapter(Name).validate_python(known_as)
    except ValidationError:
        raise InputError(f"--name {known_as}: is no name; fix: use letters, digits, dots and hyphens") from None
    asked = PROTOCOLS[protocol].with_reasoning(max_reasoning_tokens, reasoning_end, "--reasoning-end")
    evaluated = [
        evaluated_task(task, task, asked, limit=limit, max_new_tokens=max_new_tokens) for task in dict.fromkeys(tasks)
    ]
    lock = HubLock(output)
    source = model_in_folder(
        known_as,
        hub.parse(str(model)) or model,
        FileHashes(),
        f"--model {model}",
        read_template(template),
        add_bos_token=add_bos_token,
        lock=lock,
    )
    check_chat(source, "--template")
    cell = Cell(known_as, None, TEACHER_METHOD, None)
    step = Evaluate(
        title=f"evaluate {cell.folder}",
        cell=RecordCell(**cell.recorded),
        cell_folder=cell.folder,
        model=source,
        tasks=evaluated,
        allow_code_execution=allow_code_execution,
        **_settings(evaluation).answering,
    )
    if not overwrite:
        _require_same(output, step)
    lock.write()
    jobs = decide([step], output, "stale")
    return Plan(known_as, "harness evaluate", output, jobs, lambda _, key: f"harness evaluate: {_flag(key)}", lock=lock)


def _settings(evaluation: Mapping[str, Any]) -> Evaluation:
    """InputError for settings that do not go together."""
    try:
        return Evaluation.model_validate(dict(evaluation))
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"--tensor-parallel: {reason}") from None


def _flag(key: str) -> str:
    return "--" + key.removeprefix("evaluation.").replace("_", "-")


def _require_same(output: Path, step: Evaluate) -> None:
    for made in step.outputs:
        manifest = Store(output).output(made.folder).manifest
        if manifest is None or manifest.identity.hash == made.fingerprint.hash:
            continue
        changed = differences(manifest.identity.parts, made.fingerprint.parts)
        raise InputError(
            f"{output / made.folder}: holds another evaluation ({changed[0]}); fix: give another --name or --output-dir, "
            "or --overwrite"
        )


def record_folders(plan: Plan) -> dict[str, Path]:
    """The folder of each task's record, in the order in which the tasks were asked for."""
    (step,) = (job.step for job in plan.jobs.values() if isinstance(job.step, Evaluate))
    return {task.entry: plan.root / output.folder for task, output in zip(step.tasks, step.outputs, strict=True)}
