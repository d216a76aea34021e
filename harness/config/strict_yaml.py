"""YAML without its traps: a key that is given twice, and values that JSON does not have, are errors with file and line or key."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dskd.errors import InputError
from harness.config.explain import dotted, shortened

_DEEPEST = 30
_LARGEST = 2**63 - 1


def read_mapping(path: Path) -> dict[str, Any]:
    """The content of a YAML file that is a mapping of text to what JSON can hold. InputError for anything else."""
    content = _read(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: is not a mapping of keys; fix: start from one of `harness list matrices`")
    _check(content, path, ())
    return dict(content)


class _StrictLoader(yaml.SafeLoader):
    """YAML where a repeated key is an error: plain YAML would silently keep the last.

    Keys are compared as they are written, before what `<<` merges in joins them: the file may override that.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problem = "a key is a list or a mapping; fix: write text"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            if key.value in seen:
                problem = f"the key '{key.value}' is given twice; fix: keep one"
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
            problem = f"{shortened(node.value)} cannot be read as {kind}; fix: put it in quotes if it is text"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def _read(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply to be read; fix: write it flat") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); fix: correct the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text; fix: save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = " ".join(str(error.problem).split())
        if "fix:" not in problem:
            problem += (
                "; fix: indent with spaces" if "'\\t'" in problem else "; fix: correct that line or the one before"
            )
        raise InputError(f"{path}{line}: is not valid YAML: {problem}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None


def _check(value: Any, path: Path, location: tuple[Any, ...]) -> None:
    """InputError for what YAML can say and JSON cannot: all of it goes into identities and configurations."""
    where = f"{path}: {dotted(location)}"
    if len(location) > _DEEPEST:
        raise InputError(
            f"{path}: {dotted(location[:3])}: is nested too deeply, or contains itself; fix: write it flat"
        )
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InputError(
                    f"{path}: {dotted((*location, key))}: the key {key!r} is no text; fix: put it in quotes"
                )
            _check(item, path, (*location, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, path, (*location, index))
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where}: {value} is no finite number; fix: give one")
    elif isinstance(value, int) and abs(value) > _LARGEST:
        raise InputError(f"{where}: the number is beyond 64 bits; fix: give a smaller one")
    elif isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        raise InputError(f"{where}: half of a surrogate pair is no text; fix: write the whole character")
    elif value is not None and not isinstance(value, (str, bool, int, float)):
        raise InputError(
            f"{where}: a {type(value).__name__} is no value of a matrix; fix: put it in quotes if it is text"
        )
