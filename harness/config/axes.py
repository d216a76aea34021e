"""The axes of a matrix file: named sets of settings that methods are combined with.

    axes:
      text: {data: {}, own: {training: {rollouts: {share: 0.5}}, teacher_outputs: {kind: live}}}
      training.learning_rate: [1.0e-4, 1.0e-3]
      data: [dolly, alpaca]

`kd` on these is kd+learning_rate-0.0001, kd+own+learning_rate-0.0001 and so on. A value that changes nothing, `{}`, adds nothing to
names. `data` alone makes no variants of methods: it makes pairs with other training data, which have tables of their own. `text` may be a list
of who writes the text, `text: [data, teacher, student]`, each value called by its own name: `kd+teacher`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dskd.errors import InputError
from dskd.text import Text
from dskd.training.options import TrainingOptions
from harness.config.explain import explain, shortened
from harness.config.partial import KEYS, as_text
from harness.config.places import Location
from harness.config.settings import ALTERNATIVES
from harness.config.strict import Name

Where = Callable[[Sequence[Any]], str]
Path = tuple[str, ...]

DATA = "data"  # the axis of training sets
TEXT = "text"  # the axis, and the key, of who writes what is trained on
_NAME: TypeAdapter[str] = TypeAdapter(Name)
_SHARED = ("data", "max_length")  # options of a training that all methods of a table have alike


@dataclass(frozen=True)
class AxisValue:
    """A value of an axis.

    Attributes:
        axis: the name of the axis.
        label: its name, as `--only AXIS=LABEL` has it.
        suffix: what it adds to the name of a method; "" where it changes nothing.
        sets: {where a setting stands in an entry of `methods`: (its value, where the file has it)}.
    """

    axis: str
    label: str
    suffix: str
    sets: Mapping[Path, tuple[Any, Location]]


def read_axes(given: Any, where: Where, text: Any = None) -> dict[str, list[AxisValue]]:
    """The axes of methods, by name, from `axes` of a file without `data`. InputError for what is none; text: the file's own `text`."""
    if not isinstance(given, Mapping):
        raise InputError(
            f"{where(('axes',))}: is no mapping of axes, but {shortened(given)}; fix: write NAME: {{VALUE: {{…}}}}"
        )
    axes: dict[str, list[AxisValue]] = {}
    for key, values in given.items():
        name, place = key.rpartition(".")[2], where(("axes", key))
        _check_name(name, place)
        if name in {*KEYS, "include", "exclude"}:
            raise InputError(f"{place}: every matrix has a key '{name}'; fix: {_fix_of(name)}")
        if name in axes:
            raise InputError(f"{place}: another axis is called '{name}' too; fix: write one of them with named values")
        if not isinstance(values, Mapping | list) or not values:
            raise InputError(
                f"{place}: has no values; fix: give a list of values of one option, or {{NAME: {{settings}}}}"
            )
        if isinstance(values, Mapping):
            axes[name] = [*_named(key, values, where)]
        elif key == TEXT:
            axes[name] = [text_value(each, ("axes", key, index), where, text) for index, each in enumerate(values)]
        else:
            axes[name] = [*_listed(key, name, values, where)]
        if len({value.label for value in axes[name]}) < len(axes[name]):
            raise InputError(f"{place}: a value is given twice; fix: give each once")
    _check_suffixes(axes, where)
    return axes


def _fix_of(name: str) -> str:
    return "write data: [NAME, NAME], names of data sets" if name == DATA else "call the axis otherwise"


def _check_name(name: Any, place: str) -> None:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        raise InputError(
            f"{place}: {name!r} is not a name; fix: use letters, digits and single - . _ between them"
        ) from None


def _named(axis: str, values: Mapping[Any, Any], where: Where) -> Iterator[AxisValue]:
    """The values of `AXIS: {NAME: {settings as those of a method}}`."""
    if "." in axis:
        raise InputError(
            f"{where(('axes', axis))}: is the place of one option; fix: give a list of its values, or a name without dots"
        )
    for label, settings in values.items():
        own = ("axes", axis, label)
        _check_name(label, where(own))
        if settings is not None and not isinstance(settings, Mapping):
            raise InputError(
                f"{where(own)}: is no mapping of settings, but {shortened(settings)}; fix: write {{training: {{…}}}}"
            )
        sets: dict[Path, tuple[Any, Location]] = {}
        for key, value in (settings or {}).items():
            if key == "training":
                if not isinstance(value, Mapping):
                    raise InputError(
                        f"{where((*own, key))}: is no mapping of training options; fix: write {{OPTION: VALUE}}"
                    )
                sets |= {(key, option): (each, (*own, key, option)) for option, each in value.items()}
            else:
                sets[key,] = (value, (*own, key))
        for path, (_, place) in sets.items():
            _check_path(path, where(place))
        yield AxisValue(axis, label, label if sets else "", sets)


def text_value(given: Any, location: Location, where: Where, inherited: Any = None) -> AxisValue:
    """The value of the axis `text` that this text is.

    Args:
        given: As a file has it.
        location: Where.
        where: Names places.
        inherited: The text of the whole matrix, which adds nothing to the names of methods; None is the data's.

    Raises:
        InputError: For what is no text.
    """
    label = _text(given, location, where).label
    same = label == ("data" if inherited is None else _text(inherited, (TEXT,), where).label)
    return AxisValue(TEXT, label, "" if same else label, {(TEXT,): (given, location)})


def _text(given: Any, location: Location, where: Where) -> Text:
    try:
        return Text.model_validate(given)
    except ValidationError as error:
        raise InputError(explain(error, lambda inner: where((*location, *inner)), Text)) from None


def _listed(key: str, name: str, values: Sequence[Any], where: Where) -> Iterator[AxisValue]:
    """The values of `training.OPTION: [VALUE, …]`, or of one option of methods."""
    path = tuple(key.split("."))
    _check_path(path, where(("axes", key)))
    if len(path) == 1 and name in TrainingOptions.model_fields:
        raise InputError(f"{where(('axes', key))}: is an option of trainings; fix: write training.{name}")
    for index, value in enumerate(values):
        place = ("axes", key, index)
        if not isinstance(value, str | int | float):
            raise InputError(f"{where(place)}: {shortened(value)} gives no name; fix: write the axis with named values")
        label = value if isinstance(value, str) else as_text(value)
        _check_name(f"{name}-{label}", where(place))
        yield AxisValue(name, label, f"{name}-{label}", {path: (value, place)})


def _check_path(path: Path, place: str) -> None:
    """InputError for a setting that no axis can have."""
    if path[0] == DATA or path[:2] == ("training", DATA):
        raise InputError(f"{place}: only the axis `data` has training sets; fix: write axes: {{data: [NAME, NAME]}}")
    if path[:2] == ("training", "max_length"):
        raise InputError(
            f"{place}: `max_length` is the same for all methods of a matrix; fix: use another matrix for another one"
        )
    if path[0] in {"method", "axes"}:
        raise InputError(f"{place}: no axis can have `{path[0]}`; fix: name methods in `pairs`")
    if path == ("training",):
        raise InputError(f"{place}: is no single option; fix: write training.OPTION")


def _check_suffixes(axes: Mapping[str, Sequence[AxisValue]], where: Where) -> None:
    taken: dict[str, str] = {}
    for name, values in axes.items():
        if sum(not value.suffix for value in values) > 1:
            raise InputError(f"{where(('axes', name))}: two values change nothing; fix: leave one out")
        for value in values:
            other = taken.setdefault(value.suffix, name) if value.suffix else name
            if other != name:
                raise InputError(
                    f"{where(('axes', name, value.label))}: the axis '{other}' has a value of that name too; fix: rename one"
                )


def joined_settings(
    values: Sequence[AxisValue], own: Mapping[str, Any], inherited: Mapping[str, Any], where: Where
) -> dict[str, Any]:
    """Settings of a method with those of values of several axes.

    Args:
        own: the entry of the method in `methods`.
        inherited: `training` and `teacher_outputs` of the matrix, of which a part of a group of options is changed.
        where: names the place of what two axes have.

    Raises:
        InputError: where two axes have the same setting.
    """
    settings = dict(own)
    given: dict[Path, tuple[str, Location]] = {}
    for value in values:
        for path, (setting, place) in value.sets.items():
            for other, (axis, _) in given.items():
                if axis != value.axis and _same(path, other):
                    raise InputError(
                        f"{where(place)}: the axis '{axis}' has {'.'.join(other)}; fix: join the two axes to one"
                    )
            given[path] = (value.axis, place)
            if path[0] == "training":
                options = dict(settings.get("training") or {})
                dropped = ALTERNATIVES.get(path[1])
                options.pop(dropped, None)
                settings["training"] = _put(options, path[1:], setting, inherited.get("training"))
            else:
                settings = _put(settings, path, setting, inherited)
    return settings


def _same(path: Path, other: Path) -> bool:
    """Whether two axes would change the same setting, or one of two that exclude each other."""
    if path[:1] == other[:1] == ("training",) and ALTERNATIVES.get(path[1]) == other[1]:
        return True
    length = min(len(path), len(other))
    return path[:length] == other[:length]


def _put(group: Mapping[str, Any], path: Path, value: Any, inherited: Any) -> dict[str, Any]:
    """A group of settings with one changed; what is below it starts from what is inherited."""
    first, rest = path[0], path[1:]
    if not rest:
        return {**group, first: value}
    below = inherited.get(first) if isinstance(inherited, Mapping) else None
    start = group.get(first, below)
    return {**group, first: _put(start if isinstance(start, Mapping) else {}, rest, value, None)}
