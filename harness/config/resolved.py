"""A matrix as a file of its own, which a run's folder keeps: with what it extends, its groups, axes and variables, without secrets."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dskd.io import write_atomic
from harness.config.matrix import Matrix
from harness.config.matrix_source import MatrixSource
from harness.config.secrets import without_secrets

RESOLVED = "matrix.yaml"
log = logging.getLogger(__name__)
_HEADER = """\
# The matrix of this run, written by `harness run`: all that its file extends, groups, axes and variables are in it.
# It plans the same jobs, from the folder that its paths are relative to: harness plan --matrix matrix.yaml
"""


def resolved_content(
    matrix: Matrix, content: Mapping[str, Any], source: MatrixSource, variables: Mapping[str, str]
) -> dict[str, Any]:
    """The content of a file that has all of a matrix, methods that the command line added too, and no secret.

    Args:
        matrix: with the methods that were added.
        content: what it was made of, without those.
        source: the file, for the names of its variables.
        variables: their values, of `--set`.
    """
    resolved = dict(content)
    given = content["pairs"]
    if any(pair.methods != old["methods"] for pair, old in zip(matrix.pairs, given, strict=True)):
        resolved["pairs"] = [{**old, "methods": pair.methods} for pair, old in zip(matrix.pairs, given, strict=True)]
    own = content.get("methods") or {}
    if added := {name: {"method": entry.method} for name, entry in matrix.methods.items() if name not in own}:
        resolved["methods"] = {**own, **added}
    values = {name: variables.get(name, os.environ.get(name, "")) for name in source.variables}
    return without_secrets(resolved, values)


def resolved_text(matrix: Matrix) -> str:
    """The text of the file."""
    first = {key: matrix.resolved[key] for key in ("schema_version", "name") if key in matrix.resolved}
    content = first | matrix.resolved
    return _HEADER + yaml.dump(content, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)


def write_resolved(folder: Path, matrix: Matrix) -> None:
    """Write the file into a run's folder, atomically, unless it says the same already.

    A file of that name that no run wrote is the user's, and stays; a warning says so.
    """
    path = folder / RESOLVED
    try:
        before = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        before = _HEADER
    except UnicodeDecodeError:
        before = ""
    if not before.startswith(_HEADER.partition("\n")[0]):
        log.warning("%s: is a file of your own and stays; the matrix of this run is not saved", path)
        return
    text = resolved_text(matrix)
    if before != text:
        write_atomic(path, text)


class _Plain(yaml.SafeDumper):
    """YAML without anchors: what the file repeats by `<<` stands at each place."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
