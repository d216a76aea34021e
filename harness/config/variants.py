"""From the axes of a matrix file to variants of methods and pairs, as a matrix has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from dskd.errors import InputError
from harness.config.axes import DATA, TEXT, AxisValue, joined_settings, read_axes, text_value
from harness.config.explain import shortened
from harness.config.groups import Groups
from harness.config.partial import KEYS, as_text
from harness.config.places import Location
from harness.suggestions import did_you_mean

Where = Callable[[Sequence[Any]], str]


class Variants:
    """What the axes of a file make of its pairs, methods and entries of `include`.

    Attributes:
        content: the content without `axes`.
        places: where in the content that was given each new entry comes from.
    """

    def __init__(self, content: Mapping[str, Any], groups: Groups, where: Where) -> None:
        """content: with groups in their place. InputError for what is wrong with axes."""
        self._groups, self._where = groups, where
        given = content.get("axes") or {}
        self._data = self._data_sets(given.get(DATA)) if isinstance(given, Mapping) and DATA in given else []
        self._axes = read_axes(
            {k: v for k, v in given.items() if k != DATA} if isinstance(given, Mapping) else given,
            where,
            content.get(TEXT),
        )
        self.content = {key: value for key, value in content.items() if key != "axes"}
        self.places: dict[Location, Location] = {}
        self._methods = content.get("methods") or {}
        self._made: dict[str, Any] = {}
        if self._data and isinstance(self.content.get("training"), Mapping):
            self.content["training"] = {"data": self._data[0][0], **self.content["training"]}
        if isinstance(pairs := content.get("pairs"), list):
            self.content["pairs"] = self._pairs(pairs)
        if isinstance(include := content.get("include"), list):
            self.content["include"] = self._included(include)
        if isinstance(self._methods, Mapping):
            own = {name: self._without_list(name, entry) for name, entry in self._methods.items()}
            if own or self._made:
                self.content["methods"] = {**own, **self._made}

    def _data_sets(self, given: Any) -> list[tuple[str, Location]]:
        place = self._where(("axes", DATA))
        found = self._groups.names(given, ("axes", DATA))
        if not found:
            raise InputError(f"{place}: is no list of data sets, but {shortened(given)}; fix: write data: [NAME, NAME]")
        if len({name for name, _ in found}) < len(found):
            raise InputError(f"{place}: a data set is given twice; fix: give each once")
        return found

    def _pairs(self, pairs: Sequence[Any]) -> list[Any]:
        """Each pair with each data set, and its methods with each value of their axes."""
        made: list[Any] = []
        for index, pair in enumerate(pairs):
            if not isinstance(pair, Mapping):
                self.places["pairs", len(made)] = ("pairs", index)
                made.append(pair)
                continue
            if self._data and "data" in pair:
                raise InputError(
                    f"{self._where(('pairs', index, 'data'))}: and `axes` has data too; fix: leave one of the two out"
                )
            variants: list[tuple[Any, int]] = []
            methods, text = pair.get("methods"), self._text_of(pair, index)
            for position, name in enumerate(methods if isinstance(methods, list) else ()):
                found = (
                    self._variants_of(name, ("pairs", index, "methods", position), text)
                    if isinstance(name, str)
                    else [name]
                )
                variants += [(variant, position) for variant in found]
            for data, place in self._data or [("", ())]:
                own: Location = ("pairs", len(made))
                self.places[own] = ("pairs", index)
                for number, (_, position) in enumerate(variants):
                    self.places[*own, "methods", number] = ("pairs", index, "methods", position)
                new = {key: value for key, value in pair.items() if key != TEXT}
                new |= {"methods": [variant for variant, _ in variants]} if variants else {}
                if data:
                    new["data"], self.places[*own, "data"] = data, place
                made.append(new)
        return made

    def _text_of(self, pair: Mapping[str, Any], index: int) -> list[AxisValue]:
        """The text of a pair, as a value that its methods have; none where it says nothing."""
        place = ("pairs", index, TEXT)
        if pair.get(TEXT) is None:
            return []
        if TEXT in self._axes:
            raise InputError(f"{self._where(place)}: and `axes` has text too; fix: leave one of the two out")
        value = text_value(pair[TEXT], place, self._where, self.content.get(TEXT))
        training = self.content.get("training")
        if (
            not value.suffix
            and self.content.get(TEXT) is None
            and isinstance(training, Mapping)
            and training.get("rollouts")
        ):
            value = replace(value, suffix=value.label)  # where no pair says it, the student writes too
        return [value] if value.suffix else []

    def _axes_of(self, name: str) -> list[str]:
        """The axes that a method is combined with: all, or those that its entry in `methods` lists."""
        entry = self._methods.get(name) if isinstance(self._methods, Mapping) else None
        listed = entry.get("axes") if isinstance(entry, Mapping) else None
        if not isinstance(listed, list):
            return list(self._axes)
        for index, axis in enumerate(listed):
            if axis not in self._axes:
                place = self._where(("methods", name, "axes", index))
                raise InputError(f"{place}: no axis {axis!r}{did_you_mean(str(axis), self._axes)}")
        return [axis for axis in self._axes if axis in listed]

    def _variants_of(self, name: str, place: Location, text: Sequence[AxisValue] = ()) -> list[str]:
        """The names of a method with each value of its axes, in the order of the file, and with its pair's text where it has none."""
        entry = self._methods.get(name) if isinstance(self._methods, Mapping) else None
        own = [] if isinstance(entry, Mapping) and entry.get(TEXT) is not None else [*text]
        return [
            self._variant(name, [*own, *values], place)
            for values in product(*(self._axes[axis] for axis in self._axes_of(name)))
        ]

    def _variant(self, name: str, values: Sequence[AxisValue], place: Location) -> str:
        """Make the entry of a method with one value of each of some axes, and return its name."""
        variant = "+".join([name, *(value.suffix for value in values if value.suffix)])
        if not values or variant in self._made:
            return variant
        if variant != name and variant in self._methods:
            raise InputError(
                f"{self._where(('methods', variant))}: the axes make a method of that name; fix: rename it"
            )
        entry = self._methods.get(name) or {}
        if not isinstance(entry, Mapping):
            return name  # which is a mistake that the matrix is told about
        given = entry.get("axes")
        labels = given if isinstance(given, Mapping) else {}
        if again := sorted(set(labels) & {value.axis for value in values}):
            raise InputError(
                f"{self._where(('methods', name, 'axes', again[0]))}: is an axis of the file too; fix: rename one"
            )
        own = {key: value for key, value in entry.items() if key != "axes"}
        settings = joined_settings(values, own, self.content, self._where)
        settings["axes"] = {**labels, **{value.axis: value.label for value in values}}
        if variant != name:
            settings.setdefault("method", name)
            self.places["methods", variant] = ("methods", name) if name in self._methods else place
            for value in values:
                for path, (_, origin) in value.sets.items():
                    self.places["methods", variant, *path] = origin
        self._made[variant] = settings
        return variant

    def _without_list(self, name: str, entry: Any) -> Any:
        """An entry of `methods` without its list of axes, which has done its work."""
        if not isinstance(entry, Mapping) or not isinstance(entry.get("axes"), list):
            return entry
        self._axes_of(name)  # of a method that no pair names, too
        return {key: value for key, value in entry.items() if key != "axes"}

    def _included(self, entries: Sequence[Any]) -> list[Any]:
        """Each entry for each of the values that its keys have; an axis that it does not name is not applied."""
        made: list[Any] = []
        for index, entry in enumerate(entries):
            own = ("include", index)
            if not isinstance(entry, Mapping):
                self.places["include", len(made)] = own
                made.append(entry)
                continue
            choices: list[list[tuple[Any, Location]]] = []
            for key, value in entry.items():
                if key not in {*KEYS, TEXT, *self._axes}:
                    raise InputError(
                        f"{self._where((*own, key))}: unknown key{did_you_mean(str(key), [*KEYS, *self._axes])}"
                    )
                if key == TEXT and key not in self._axes:
                    choices.append([(text_value(value, (*own, key), self._where, self.content.get(TEXT)), (*own, key))])
                elif key in self._axes:
                    choices.append([(self._value(key, each, (*own, key)), (*own, key)) for each in _several(value)])
                elif isinstance(value, str) or key != "seed":
                    choices.append(self._groups.names(value, (*own, key)) or [(value, (*own, key))])
                else:
                    choices.append([(each, (*own, key)) for each in _several(value)])
            for choice in product(*choices):
                chosen = [(key, value) for key, (value, _) in zip(entry, choice, strict=True)]
                new = {key: value for key, value in chosen if not isinstance(value, AxisValue)}
                values = [value for value, _ in choice if isinstance(value, AxisValue)]
                self.places["include", len(made)] = own
                self.places |= {
                    ("include", len(made), key): place for key, (_, place) in zip(entry, choice, strict=True)
                }
                if isinstance(new.get("method"), str):
                    order = [TEXT, *self._axes] if TEXT not in self._axes else [*self._axes]
                    ordered = sorted(values, key=lambda value: order.index(value.axis))
                    new["method"] = self._variant(new["method"], ordered, (*own, "method"))
                made.append(new)
        return made

    def _value(self, axis: str, given: Any, place: Location) -> AxisValue:
        for value in self._axes[axis]:
            if as_text(given) in (value.label, as_text(value.label)):
                return value
        labels = [value.label for value in self._axes[axis]]
        raise InputError(f"{self._where(place)}: no such value of '{axis}'{did_you_mean(str(given), labels)}")


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
