"""Reading a matrix file: finding it, its `${VARIABLES}`, and every mistake in it as one line with file, key and fix."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dskd.errors import InputError
from harness.config.matrix import (
    DATA_KINDS,
    MODEL_KINDS,
    Cell,
    FirstLayersModel,
    Matrix,
    NewModel,
    Pair,
    PathModel,
    Training,
    cells,
)
from harness.protocols import column_title
from harness.suggestions import did_you_mean

SHIPPED = Path(__file__).parent / "matrices"
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_TAGS = {*DATA_KINDS, *MODEL_KINDS}


def shipped_matrices() -> dict[str, Path]:
    """The matrices that come with the package, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def find_matrix(name_or_path: str) -> Path:
    """The file of a matrix given by path or by the name of one that ships; InputError where there is none."""
    if name_or_path in shipped_matrices():
        return shipped_matrices()[name_or_path]
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the path of a matrix file")
    raise InputError(
        f"{name_or_path}: no such matrix file and no matrix of that name ships"
        f"{did_you_mean(name_or_path, shipped_matrices())}"
    )


def read_matrix(path: Path, variables: Mapping[str, str] | None = None, add_methods: Sequence[str] = ()) -> Matrix:
    """Read and check a matrix file; `add_methods` join the methods of every pair that they can be used for.

    `variables` (from `--set NAME=VALUE`) go before the environment. Everything that can be known from the file alone is checked:
    keys, types, names of models, data, methods and tasks, and the options of methods and training.
    """
    raw = _read_yaml(path)
    if not isinstance(raw, Mapping):
        raise InputError(f"{path}: is not a mapping of keys; start from `harness list matrices`")
    _check_values(raw, path, ())
    # The tasks read HARNESS_DATA whether a matrix names it or not; any other name that it does not hold is a slip.
    known = {*_VARIABLE.findall(path.read_text(encoding="utf-8")), "HARNESS_DATA"}
    for name in variables or {}:
        if name not in known:
            raise InputError(f"--set {name}: {path} has no ${{{name}}}; it has {', '.join(sorted(known))}")
    values = _substitute(raw, variables or {}, path, ())
    try:
        matrix = Matrix.model_validate(values)
    except ValidationError as error:
        raise InputError(explain(error, path)) from None
    _check_names(matrix, path)
    matrix = _with_methods(matrix, add_methods, path)
    _check_options(matrix, path)
    return matrix


def _with_methods(matrix: Matrix, names: Sequence[str], path: Path) -> Matrix:
    """A method for one vocabulary joins pairs that have such a method already, any other joins all pairs."""
    from dskd.methods import METHODS, get, known

    pairs = matrix.pairs
    for name in names:
        if name not in METHODS:
            raise InputError(f"--add-method {name}: no such method{did_you_mean(name, METHODS)}")

        def suits(pair: Pair, name: str = name) -> bool:
            same = (get(m).requires.vocabulary == "same" for m in map(matrix.method_of, pair.methods) if known(m))
            return get(name).requires.vocabulary == "any" or any(same)

        if not any(suits(pair) for pair in pairs):
            raise InputError(f"--add-method {name}: needs one vocabulary, and {path} has no pair with such a method")
        pairs = [
            pair.model_copy(update={"methods": [*pair.methods, name]})
            if suits(pair) and name not in pair.methods
            else pair
            for pair in pairs
        ]
    return matrix.model_copy(update={"pairs": pairs})


class _StrictLoader(yaml.SafeLoader):
    """YAML where a key that stands twice is an error: plain YAML would silently keep the last.

    Keys are compared as they are written, before what `<<` merges in joins them: the file may override that.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.composer.ComposerError(
                    None, None, "a key is a list or a mapping; write text", key.start_mark
                )
            if key.value in seen:
                problem = f"the key '{key.value}' stands twice; keep one"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError):
            if not isinstance(node, yaml.ScalarNode):
                raise
            # PyYAML's own readers of dates, numbers and tagged scalars fail like this on 2024-13-01 or a number of 5,000 digits.
            kind = node.tag.rpartition(":")[2]
            problem = f"{_short(node.value)} cannot be read as {kind}; put it in quotes if it is text"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


_DEEPEST = 30
_LARGEST = 2**63 - 1


def _check_values(value: Any, path: Path, where: tuple[Any, ...]) -> None:
    """InputError for what YAML can say and a matrix cannot: all of it goes into identities and configurations as JSON."""
    if len(where) > _DEEPEST:
        raise InputError(f"{path}: {dotted(where[:3])}: is nested too deeply, or holds itself; write it flat")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InputError(f"{path}: {dotted((*where, key))}: the key {key!r} is no text; put it in quotes")
            _check_values(item, path, (*where, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_values(item, path, (*where, index))
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{path}: {dotted(where)}: {value} is no finite number; give one")
    elif isinstance(value, int) and abs(value) > _LARGEST:
        raise InputError(f"{path}: {dotted(where)}: the number is beyond 64 bits; give a smaller one")
    elif isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        raise InputError(f"{path}: {dotted(where)}: half of a surrogate pair is no text; write the whole character")
    elif value is not None and not isinstance(value, (str, bool, int, float)):
        kind = type(value).__name__
        raise InputError(f"{path}: {dotted(where)}: a {kind} is no value of a matrix; put it in quotes if it is text")


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply to be read; write it flat") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: is not valid YAML: {' '.join(str(error.problem).split())}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None


def _substitute(value: Any, variables: Mapping[str, str], path: Path, where: tuple[Any, ...]) -> Any:
    if isinstance(value, Mapping):
        return {key: _substitute(item, variables, path, (*where, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, variables, path, (*where, index)) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def look_up(match: re.Match[str]) -> str:
        name = match[1]
        if name in variables:
            return variables[name]
        if os.environ.get(name):
            return os.environ[name]
        raise InputError(
            f"{path}: {dotted(where)}: the variable {name} is not set; "
            f"give --set {name}=VALUE or set it in the environment"
        )

    return _VARIABLE.sub(look_up, value)


def dotted(location: Sequence[Any]) -> str:
    """`models.small-teacher.training.0.steps`, as errors name a place in a matrix."""
    return ".".join(str(part) for part in location)


def explain(
    error: ValidationError, path: Path, prefix: Sequence[Any] = (), model: type[BaseModel] | None = None
) -> str:
    """The first mistake that pydantic found, as `FILE: key.path: what is wrong; fix`.

    `prefix` is where the checked part stands in the file; `model` what checked it, for those of `dskd` that forbid unknown keys.
    """
    details: ErrorDetails = error.errors()[0]
    location = [*prefix, *_without_tags(details["loc"])]
    context = details.get("ctx", {})
    kind = details["type"]
    if kind == "unknown_key":
        location.append(context["key"])
        message = f"unknown key{context['hint']}"
    elif kind == "extra_forbidden":
        message = f"unknown key{did_you_mean(str(details['loc'][-1]), _keys_at(model, details['loc'][:-1]))}"
    elif kind == "missing":
        message = "is missing; add it"
    elif kind == "value_error":
        message = str(context["error"])
    elif kind == "needs_one_of":
        message = details["msg"]
    elif kind == "string_pattern_mismatch":
        message = f"{details['input']!r} is not a name; use letters, digits and single - . _ between them"
    else:
        message = f"{details['msg'][0].lower()}{details['msg'][1:]}, not {_short(details['input'])}"
    return f"{path}: {dotted(location)}: {message}" if location else f"{path}: {message}"


def _keys_at(model: type[BaseModel] | None, location: Sequence[Any]) -> list[str]:
    """The keys of the model that stands at a place inside another."""
    for part in location:
        annotation = model.model_fields[part].annotation if model is not None else None
        inner = (annotation, *get_args(annotation))  # the model itself, or one that may be None
        model = next((one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)), None)
    return list(model.model_fields) if model is not None else []


def _without_tags(location: Sequence[Any]) -> list[Any]:
    # models.<name>.<tag>.… and data.<name>.<tag>.…: the tag is pydantic's name for the union's member, no key of the file.
    parts = list(location)
    if parts and parts[-1] == "[key]":
        parts = parts[:-1]
    if len(parts) > 2 and parts[0] in {"models", "data"} and parts[2] in _TAGS:
        del parts[2]
    return parts


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- what the file names --------------------------------------------------------------------------------------------------------


def _check_names(matrix: Matrix, path: Path) -> None:
    def require(name: str, known: Mapping[str, Any], where: str, what: str) -> None:
        if name not in known:
            raise InputError(f"{path}: {where}: no {what} '{name}'{did_you_mean(name, known)}")

    for index, pair in enumerate(matrix.pairs):
        require(pair.teacher, matrix.models, f"pairs.{index}.teacher", "model")
        require(pair.student, matrix.models, f"pairs.{index}.student", "model")
        if (pair.teacher, pair.student) in {(p.teacher, p.student) for p in matrix.pairs[:index]}:
            raise InputError(f"{path}: pairs.{index}: the same teacher and student stand twice; join their methods")
        if len(set(pair.methods)) != len(pair.methods):
            raise InputError(f"{path}: pairs.{index}.methods: the same method stands twice; give each once")
    for name, model in matrix.models.items():
        for index, stage in enumerate(_stages(model)):
            require(stage.data, matrix.data, f"models.{name}.training.{index}.data", "data set")
        if isinstance(model, FirstLayersModel):
            require(model.layers_of, matrix.models, f"models.{name}.layers_of", "model")
            _check_no_cycle(matrix, name, path)
    require(matrix.training.data, matrix.data, "training.data", "data set")


def _check_no_cycle(matrix: Matrix, name: str, path: Path) -> None:
    seen = [name]
    model = matrix.models[name]
    while isinstance(model, FirstLayersModel) and model.layers_of in matrix.models:
        if model.layers_of in seen:
            raise InputError(
                f"{path}: models.{name}.layers_of: goes round in a circle ({' -> '.join([*seen, model.layers_of])})"
            )
        seen.append(model.layers_of)
        model = matrix.models[model.layers_of]


def _stages(model: PathModel | NewModel | FirstLayersModel) -> list[Training]:
    return [] if isinstance(model, PathModel) else model.training


def _check_options(matrix: Matrix, path: Path) -> None:
    import dskd.methods
    import harness.engines
    from dskd.methods import METHODS, known

    def known_method(name: str, where: str) -> None:
        if not known(name):
            raise InputError(f"{path}: {where}: no method '{name}'{did_you_mean(name, METHODS)}")

    for index, pair in enumerate(matrix.pairs):
        for position, method in enumerate(pair.methods):
            known_method(matrix.method_of(method), f"pairs.{index}.methods.{position}")
    for name in matrix.methods:
        known_method(matrix.method_of(name), f"methods.{name}")
        options_class = dskd.methods.get(matrix.method_of(name)).Options
        try:
            options_class.model_validate(matrix.method_options(name))
        except ValidationError as error:
            raise InputError(explain(error, path, ("methods", name), options_class)) from None
    _check_training(matrix.training, path, ("training",))
    for name in matrix.methods:
        _check_training(matrix.training_of(name), path, ("methods", name, "training"))
    for name, model in matrix.models.items():
        for index, stage in enumerate(_stages(model)):
            _check_training(stage, path, ("models", name, "training", index))
    _check_tasks(matrix, path)
    if matrix.launch.accelerate_config is not None:
        from dskd.training.launch import configuration_file

        try:
            configuration_file(matrix.launch.accelerate_config)
        except InputError as error:
            raise InputError(f"{path}: launch.accelerate_config: {error}") from None
    harness.engines.check(matrix.evaluation.engine, f"{path}: evaluation.engine")


def _check_tasks(matrix: Matrix, path: Path) -> None:
    import harness.tasks

    columns: dict[str, str] = {}
    for entry, settings in matrix.tasks.items():
        name, known = matrix.task_of(entry), harness.tasks.names()
        where = f"tasks.{entry}.task" if settings.task else f"tasks.{entry}"
        if name.startswith(harness.tasks.LM_EVAL):
            try:
                harness.tasks.load(name)
            except InputError as error:
                raise InputError(f"{path}: {where}: {error}") from None
        elif name not in known:
            raise InputError(f"{path}: {where}: no task '{name}'{did_you_mean(name, known)}")
        protocol = matrix.protocol_of(entry, harness.tasks.load(name).max_new_tokens)
        earlier = columns.setdefault(column_title(name, protocol.label), entry)
        if earlier != entry:
            raise InputError(
                f"{path}: tasks.{entry}: the same task under the same protocol as tasks.{earlier}; give it another protocol, or "
                "leave one out"
            )


def _check_training(training: Training, path: Path, where: Sequence[Any]) -> None:
    from dskd.training.options import TrainingOptions

    if "seed" in training.options:
        raise InputError(f"{path}: {dotted(where)}.seed: seeds stand elsewhere; use `seeds:` or the model's `seed:`")
    try:
        TrainingOptions.model_validate(training.options)
    except ValidationError as error:
        raise InputError(explain(error, path, where, TrainingOptions)) from None


# --- which part of it -----------------------------------------------------------------------------------------------------------


def select(matrix: Matrix, only: Sequence[str], source: str) -> tuple[list[Cell], list[str]]:
    """The cells and tasks that `--only key=value` leaves; several values of one key are alternatives.

    A teacher's own cell stays while one of its pairs does, unless methods are chosen: then it stays where `teacher` is among them.
    """
    wanted: dict[str, set[str]] = {}
    possible = {
        "teacher": {pair.teacher for pair in matrix.pairs},
        "student": {pair.student for pair in matrix.pairs},
        "method": {cell.method for cell in cells(matrix)},
        "seed": {str(seed) for seed in matrix.seeds},
        "task": set(matrix.tasks),
    }
    for text in only:
        key, separator, value = text.partition("=")
        if not separator or key not in possible:
            raise InputError(f"--only {text}: write key=value with one of the keys {', '.join(possible)}")
        if value not in possible[key]:
            raise InputError(f"--only {text}: {source} has no such {key}{did_you_mean(value, possible[key])}")
        wanted.setdefault(key, set()).add(value)

    def passes(key: str, value: object) -> bool:
        return key not in wanted or str(value) in wanted[key]

    pairs = {
        (p.teacher, p.student) for p in matrix.pairs if passes("teacher", p.teacher) and passes("student", p.student)
    }
    chosen = [
        cell
        for cell in cells(matrix)
        if passes("method", cell.method)
        and (
            cell.teacher in {teacher for teacher, _ in pairs}
            if cell.student is None
            else (cell.teacher, cell.student) in pairs and passes("seed", cell.seed)
        )
    ]
    if not chosen:
        raise InputError(f"--only {' --only '.join(only)}: no cell of {source} has all of these; leave one out")
    return chosen, [task for task in matrix.tasks if passes("task", task)]
