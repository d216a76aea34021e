"""One training outside a matrix, planned as the smallest matrix there is and laid out in two folders: the data and the student."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import dskd.methods
from dskd.errors import InputError
from dskd.training.launch import configuration_file
from dskd.training.options import TrainingOptions
from harness.config.matrix import Matrix, cells, did_you_mean
from harness.planning.graph import GraphBuilder
from harness.planning.plan import Plan, decide
from harness.runs.identity import FileHashes
from harness.runs.records import RecordCell
from harness.runs.store import Store

_FOLDER = "train"


def single_plan(
    *,
    teacher: Path | None,
    student: Path,
    data: Path,
    method: str,
    method_options: Mapping[str, str],
    training: Mapping[str, Any],
    signal: Mapping[str, Any],
    launch: Mapping[str, Any],
    template: Mapping[str, Any],
    seed: int,
    limit: int | None,
    output: Path,
    overwrite: bool = False,
) -> Plan:
    """The plan of one training into `output`.

    `signal`, `launch` and `template` are the parts `teacher_signal`, `launch` and (of both models) `template` of a matrix, but the
    teacher runs live unless asked otherwise. InputError for what is wrong with any option, and where `output` holds something else
    already, unless `overwrite`.
    """
    if not dskd.methods.known(method):
        raise InputError(f"--method {method}: no such method{did_you_mean(method, dskd.methods.METHODS)}")
    chosen = dskd.methods.get(method)
    if teacher is None and (chosen.requires.teacher or chosen.requires.response_source == "teacher"):
        raise InputError(f"--method {method}: needs a teacher; give --teacher DIR")
    _check_options(method, method_options, training)
    signal = _signal_settings(method, method_options, signal)
    if "accelerate_config" in launch:
        try:
            configuration_file(launch["accelerate_config"])
        except InputError as error:
            raise InputError(f"--accelerate-config {error}") from None
    if not data.is_file():
        raise InputError(f"--data {data}: no such file; correct the path")
    hashes = FileHashes()
    for option, folder in (("--student", student), ("--teacher", teacher)):
        if folder is not None:
            try:
                hashes.model_folder(folder)
                hashes.tokenizer_folder(folder)
            except InputError as error:
                raise InputError(f"{option} {folder}: {error}") from None
    # A training without teacher is prepared as if the student were its own: no example is left out for another's tokenizer.
    asked = {"template": _template(template)} if template else {}
    models = {"student": {"path": str(student), **asked}, "teacher": {"path": str(teacher or student), **asked}}
    matrix = Matrix.model_validate(
        {
            "schema_version": 1,
            "name": "train",
            "data": {"data": {"file": str(data), "limit": limit}},
            "models": models,
            "pairs": [{"teacher": "teacher", "student": "student", "methods": [method]}],
            "methods": {method: dict(method_options)},
            "training": {"data": "data", **training},
            "teacher_signal": signal,
            "launch": dict(launch),
            "seeds": [seed],
            "tasks": {},
            "evaluation": {"score_teachers": False},
        }
    )
    source = "harness train"
    graph = GraphBuilder(matrix, source, output, engine="auto", hashes=hashes).build(cells(matrix), [])
    key = next(key for key, node in graph.items() if node.spec.kind == "train")
    node = graph[key]
    cell = RecordCell(
        teacher=teacher.resolve().name if teacher else "none", student=student.resolve().name, method=method, seed=seed
    )
    made = node.spec.outputs[0].model_copy(update={"folder": _FOLDER, "cell": cell})
    title = f"train {cell.student} by {method}"
    spec = node.spec.model_copy(update={"folder": _FOLDER, "outputs": [made], "title": title})
    graph[key] = type(node)(spec, node.needs)
    store = Store(output)
    if not overwrite:
        earlier = store.output(_FOLDER)
        earlier.require_ours()
        manifest = earlier.manifest
        if manifest is not None and manifest.identity.hash != made.identity.hash:
            raise InputError(f"--output {output}: holds another training; give another folder, or --overwrite")
    return Plan(matrix, Path(source), output, decide(graph, store, "stale"))


def _template(given: Mapping[str, Any]) -> dict[str, Any]:
    if "system" in given and given.get("kind") != "chat":
        raise InputError("--system goes with --template chat; add it, or leave out --system")
    return dict(given)


def _check_options(method: str, method_options: Mapping[str, str], training: Mapping[str, Any]) -> None:
    if ("steps" in training) == ("epochs" in training):
        raise InputError("give either --steps or --epochs")
    options = dskd.methods.get(method).Options
    for key in method_options:
        if key not in options.model_fields:
            raise InputError(f"--option {key}: {method} has no such option{did_you_mean(key, options.model_fields)}")
    try:
        options.model_validate(dict(method_options))
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"--option {first['loc'][0]}={first['input']}: {first['msg']}; correct it") from None
    try:
        TrainingOptions.model_validate(dict(training))
    except ValidationError as error:
        first = error.errors()[0]
        option = "-".join(str(part).replace("_", "-") for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"--{option}: {message}; correct it" if option else message) from None


def _signal_settings(method: str, method_options: Mapping[str, str], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The part `teacher_signal` of a matrix; top-k distributions are kept at the method's temperature."""
    settings = {"kind": "live", **asked}
    kind = settings["kind"]
    chosen = dskd.methods.get(method)
    if kind == "live" or not chosen.requires.teacher:
        if len(settings) > 1:
            raise InputError("--signal-dtype and --signal-k go with --signal-kind hidden_states or top_k; add it")
        return settings
    if kind not in chosen.requires.teacher_outputs:
        raise InputError(
            f"--signal-kind {kind}: {method} cannot learn from it; use one of live, {', '.join(chosen.requires.teacher_outputs)}"
        )
    if kind == "top_k":
        settings["temperature"] = chosen.Options.model_validate(dict(method_options)).model_dump()["temperature"]
    elif "k" in settings:
        raise InputError("--signal-k goes with --signal-kind top_k; leave it out")
    return settings
