"""Named groups of a matrix file, and the lists in it that may name them.

groups: {rivals: [gkd, minillm], all: [sft, rivals]}
pairs: [{teacher: big, student: [small, tiny], methods: [kd, rivals]}]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dskd.errors import InputError
from dskd.methods import METHODS
from harness.config.explain import explain
from harness.config.places import Location
from harness.config.strict import Name
from harness.suggestions import did_you_mean

Where = Callable[[Sequence[Any]], str]
# A name, and the key of the file that holds it.
Placed = tuple[Any, Location]

_HELD = ("models", "methods", "data", "tasks")


class Groups:
    """The groups of a matrix file.

    Attributes:
        members: {group: its names, those of the groups in it included}.
    """

    def __init__(self, content: Mapping[str, Any], where: Where) -> None:
        """InputError for what is no group, a name that is taken or unknown, and groups that contain each other."""
        self._where = where
        given = content.get("groups") or {}
        try:
            self._given = TypeAdapter(dict[Name, list[Name]]).validate_python(given)
        except ValidationError as error:
            raise InputError(explain(error, lambda location: where(("groups", *location)))) from None
        held = {key: value for key in _HELD if isinstance(value := content.get(key), Mapping)}
        for name in self._given:
            taken = [f"{key}.{name}" for key in held if name in held[key]] or (["a method"] if name in METHODS else [])
            if taken:
                raise InputError(
                    f"{where(('groups', name))}: the name is that of {taken[0]}; fix: give the group another name"
                )
        known = {name for names in (*held.values(), METHODS, self._given) for name in names}
        for name, members in self._given.items():
            if not members:
                raise InputError(
                    f"{where(('groups', name))}: has no names; fix: give one or more, or leave the group out"
                )
            for index, member in enumerate(members):
                if member not in known:
                    problem = f"no model, method, data set, task or group '{member}'{did_you_mean(member, known)}"
                    raise InputError(f"{where(('groups', name, index))}: {problem}")
        self._placed = {name: list(self._flat(name, ())) for name in self._given}
        self.members = {name: list(dict.fromkeys(each for each, _ in found)) for name, found in self._placed.items()}

    def _flat(self, name: str, inside: tuple[str, ...]) -> Iterator[Placed]:
        if name in inside:
            circle = " -> ".join([*inside, name])
            raise InputError(
                f"{self._where(('groups', name))}: goes round in a circle ({circle}); fix: leave one of these out"
            )
        for index, member in enumerate(self._given[name]):
            if member in self._given:
                yield from self._flat(member, (*inside, name))
            else:
                yield member, ("groups", name, index)

    def names(self, value: Any, location: Location) -> list[Placed] | None:
        """The names that a value stands for: one, a group, or a list of these; None for what is neither.

        What a group has twice, or what is named beside it too, stands once. What is named twice outside of groups stays twice.
        """
        several = [value] if isinstance(value, str) else value
        if not isinstance(several, list) or not all(isinstance(each, str) for each in several):
            return None
        alone = {each for each in several if each not in self.members}
        found: list[Placed] = []
        for index, each in enumerate(several):
            place = location if isinstance(value, str) else (*location, index)
            if each not in self.members:
                found.append((each, place))
                continue
            seen = alone | {name for name, _ in found}
            added = {name: origin for name, origin in reversed(self._placed[each]) if name not in seen}
            found += [(name, added[name]) for name in self.members[each] if name in added]
        return found


def expand_pairs(content: Mapping[str, Any], groups: Groups) -> tuple[dict[str, Any], dict[Location, Location]]:
    """The content with a pair for each teacher, student and data set that a pair names, and the methods of groups in their place.

    Returns:
        The content, and where its pairs come from. What is no list of pairs stays as it is.
    """
    pairs, places = content.get("pairs"), {}
    if not isinstance(pairs, list):
        return dict(content), {}
    expanded: list[Any] = []
    for index, pair in enumerate(pairs):
        if not isinstance(pair, Mapping):
            places["pairs", len(expanded)] = ("pairs", index)
            expanded.append(pair)
            continue
        named = {
            key: groups.names(pair[key], ("pairs", index, key)) for key in ("teacher", "student", "data") if key in pair
        }
        keys = [key for key, found in named.items() if found]
        methods = groups.names(pair.get("methods"), ("pairs", index, "methods"))
        for choice in product(*(named[key] or [] for key in keys)):
            own: Location = ("pairs", len(expanded))
            places[own] = ("pairs", index)
            places |= {(*own, key): place for key, (_, place) in zip(keys, choice, strict=True)}
            made = {**pair, **{key: name for key, (name, _) in zip(keys, choice, strict=True)}}
            if methods:
                made["methods"] = [name for name, _ in methods]
                places |= {(*own, "methods", position): place for position, (_, place) in enumerate(methods)}
            expanded.append(made)
    return {**content, "pairs": expanded}, places
