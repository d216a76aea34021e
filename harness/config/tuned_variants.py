"""From `tuning` of a matrix file to the names `NAME+tuned` in its pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dskd.errors import InputError
from harness.config.places import Location
from harness.config.tuning import DEFAULT, SETTING, TUNED, base_name
from harness.suggestions import did_you_mean

Where = Callable[[Sequence[Any]], str]


def with_tuned(content: Mapping[str, Any], where: Where) -> tuple[dict[str, Any], dict[Location, Location]]:
    """The content of a matrix with a name `kd+tuned` in each pair for the method `kd` that is tuned.

    Args:
        content: With groups and axes in their place.
        where: Names a place of it.

    Returns:
        The content, and where in the one that was given each new entry comes from.

    Raises:
        InputError: For a method of `tuning` that no pair has.
    """
    tuning, pairs = content.get("tuning"), content.get("pairs")
    if not isinstance(tuning, Mapping) or not isinstance(pairs, list):
        return dict(content), {}
    entries = content.get("methods")
    methods: Mapping[str, Any] = entries if isinstance(entries, Mapping) else {}
    named = [
        name
        for pair in pairs
        if isinstance(pair, Mapping) and isinstance(pair.get("methods"), list)
        for name in pair["methods"]
        if isinstance(name, str)
    ]
    named += [base_name(name) for name in named]  # of a matrix that a run has saved
    for key in ("methods", "spaces"):
        for name in tuning.get(key) or ():
            if name not in named:
                raise InputError(
                    f"{where(('tuning', key))}: no pair has a method '{name}'{did_you_mean(str(name), named)}"
                )
    chosen = set(tuning.get("methods") or named)
    keeps = tuning.get("default", True) is not False
    places: dict[Location, Location] = {}
    new_pairs, new_methods = [], dict(methods)
    for index, pair in enumerate(pairs):
        if not isinstance(pair, Mapping) or not isinstance(pair.get("methods"), list):
            new_pairs.append(pair)
            continue
        listed: list[Any] = []
        for position, name in enumerate(pair["methods"]):
            is_tuned = isinstance(name, str) and name in chosen and not name.endswith(f"+{TUNED}")
            new = [name] if keeps or not is_tuned else []
            if is_tuned and f"{name}+{TUNED}" not in pair["methods"]:
                new.append(_tuned(name, new_methods, where))
                places.setdefault(
                    ("methods", new[-1]),
                    ("methods", name) if name in methods else ("pairs", index, "methods", position),
                )
            for each in new:
                places["pairs", index, "methods", len(listed)] = ("pairs", index, "methods", position)
                listed.append(each)
        new_pairs.append({**pair, "methods": listed})
    return {**content, "pairs": new_pairs, "methods": new_methods}, places


def _tuned(name: str, methods: dict[str, Any], where: Where) -> str:
    """Add the entry of a tuned method to `methods`, and say its name. InputError where an axis of the file has the name of ours."""
    tuned, entry = f"{name}+{TUNED}", methods.get(name) or {}
    if not isinstance(entry, Mapping):
        return tuned  # which is a mistake that the matrix is told about
    axes = entry.get("axes")
    given = axes if isinstance(axes, Mapping) else {}
    if given.get(SETTING, DEFAULT) != DEFAULT:
        raise InputError(
            f"{where(('axes', SETTING))}: is what tuning calls its own axis; fix: give the axis another name"
        )
    if tuned not in methods:
        methods[tuned] = {"method": name, **entry, "axes": {**given, SETTING: TUNED}}
        methods[name] = {**entry, "axes": {**given, SETTING: DEFAULT}}
    return tuned
