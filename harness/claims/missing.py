"""What records a claim lacks, and the command that makes them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import cache

from dskd.errors import InputError
from harness.claims.claims_file import Claim
from harness.claims.evidence import Evidence, Pair
from harness.config.cells import trained_name
from harness.config.matrix_file import expand, read_source, shipped_matrices
from harness.config.tuning import base_name

OWN_MATRIX = "MATRIX.yaml"
# Fewer say too little of how much seeds vary, at the small levels of a correction (docs/claims.md); one says nothing.
FEWEST_SEEDS = 4


class MissingRecords:
    """The cells that a claim has no scores of."""

    def __init__(self, claim: Claim, evidence: Evidence) -> None:
        self._claim, self._evidence = claim, evidence
        self._found: dict[tuple[Pair, str], dict[str, str]] = {}
        self._no_pair = False

    def add(self, pair: Pair, method: str, column: str, reason: str) -> None:
        """Remember that a method lacks scores on a task, with what is known of it; `""` for a method without any."""
        self._found.setdefault((pair, method), {})[column] = reason

    def add_every_pair(self) -> None:
        """Remember that there is no pair of the kind."""
        self._no_pair = True

    def described(self) -> list[str]:
        """A line for each method of a pair."""
        if self._no_pair:
            return [f"no pair of this kind: {'; '.join(self._claim.where)}"]
        lines = []
        for ((teacher, student), method), columns in self._found.items():
            named = ", ".join(
                f"{column} ({reason})" if reason else column for column, reason in columns.items() if column
            )
            where = f" on {named}" if named else ""
            lines.append(f"{teacher} -> {student}: {method}{where}{self._evidence.hint(method)}")
        return lines

    def command(self, matrices: Sequence[str]) -> tuple[str, str]:
        """The command that makes what is missing, and what its matrix must have where none that ships does; empty where nothing is.

        Args:
            matrices: The names of matrices that were run. Others that ship are looked at after these.
        """
        claim = self._claim
        if not self._found and not self._no_pair:
            return "", ""
        pairs = list(dict.fromkeys(pair for pair, _ in self._found))
        every = [claim.recorded(name) for name in (claim.better, *claim.than)]
        methods = every if self._no_pair else list(dict.fromkeys(method for _, method in self._found))
        only = {
            "teacher": dict.fromkeys(teacher for teacher, _ in pairs),
            "student": dict.fromkeys(student for _, student in pairs),
            "method": dict.fromkeys(methods),
        }
        matrix = _matrix_with(methods, [] if self._no_pair else list(self._found), matrices)
        chosen = [f"--only {shlex.quote(f'{key}={name}')}" for key, names in only.items() for name in names]
        command = " ".join(["harness run --matrix", matrix or OWN_MATRIX, *chosen])
        return command, "" if matrix else _needs(methods)


def _needs(methods: Sequence[str]) -> str:
    named = ", ".join(dict.fromkeys(map(base_name, methods)))
    tuned = " and with `tuning`" if any(base_name(name) != name for name in methods) else ""
    return f"{OWN_MATRIX}: one with {named} in its pairs{tuned}"


def _matrix_with(methods: Sequence[str], cells: Sequence[tuple[Pair, str]], run: Sequence[str]) -> str | None:
    """The first shipped matrix, of those that were run or else of all, with these cells; or where none is known, with these methods."""
    shipped = shipped_matrices()
    for name in [*(name for name in run if name in shipped), *shipped]:
        pairs = _pairs_of(name)
        if cells and all(method in pairs.get(pair, ()) for pair, method in cells):
            return name
        if not cells and any(set(methods) <= found for found in pairs.values()):
            return name
    return None


@cache
def _pairs_of(matrix: str) -> dict[Pair, frozenset[str]]:
    """The names in each pair of a shipped matrix with enough seeds; those of tuned settings too, where it tunes."""
    source = read_source(shipped_matrices()[matrix])
    try:
        content, _ = expand(source, source.content)
    except InputError:
        return {}  # one whose names depend on variables
    if len(content.get("seeds") or ()) < FEWEST_SEEDS:
        return {}
    found: dict[Pair, frozenset[str]] = {}
    training = content["training"]["data"]
    for pair in content["pairs"]:
        data = pair.get("data", training)
        of = (str(pair["teacher"]), trained_name(str(pair["student"]), "" if data == training else str(data)))
        found[of] = found.get(of, frozenset()) | frozenset(pair["methods"])
    return found
