"""Groups and tags of lm-eval, which are names of several tasks: told from tasks, so that an error can name what is in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

# A key of a yaml file, and what may stand after a name: written by hand, or dumped with quotes.
KEY = rb"""^["']?%s["']?:[ \t]*["']?"""
END = rb"""["']?[ \t\r]*(?:#.*)?$"""
_GROUPED = re.compile(rb"""^["']?(?:group|tag)["']?:""", re.MULTILINE)


def tasks_of_group(name: str, roots: Iterable[Path]) -> list[str]:
    """Return the tasks of a group or tag, those of the groups in it included, sorted; none where no file has it."""
    texts = [path.read_bytes() for root in roots for path in root.rglob("*.yaml")]
    texts = [text for text in texts if _GROUPED.search(text)]

    @cache
    def members(group: str) -> set[str]:
        # To read them all takes seconds: only those that can say something of it.
        said = (_read(text) for text in texts if group.encode() in text)
        return {task for groups, tasks in said if group in groups for task in tasks}

    found, waiting, seen = set[str](), [name], set[str]()
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        waiting += members(each)
        if each != name and not members(each):
            found.add(each)
    return sorted(found)


@cache
def _read(text: bytes) -> tuple[list[str], list[str]]:
    """The groups and tags that a file names, and what it puts into them: tasks, groups and tags."""
    import yaml

    class Plain(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Reads `!function` as its text."""

    Plain.add_multi_constructor("!", lambda _loader, _suffix, node: getattr(node, "value", None))
    try:
        said = yaml.load(text, Loader=Plain)
    except yaml.YAMLError:
        return [], []  # whoever asks for a task of this file is told
    if not isinstance(said, dict):
        return [], []
    return [*_names(said.get("tag")), *_names(said.get("group"))], _names(said.get("task"))


def _names(value: Any) -> list[str]:
    """The names in `tag`, `group` or `task`: one, or a list of them, of mappings that have one, and of groups written in place."""
    if isinstance(value, list):
        return [name for each in value for name in _names(each)]
    if isinstance(value, dict):
        return _names(value.get("task", value.get("group")))
    return [value] if isinstance(value, str) else []
