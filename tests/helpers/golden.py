"""Losses and gradients that the authors' own code gives on small random inputs.

songmzhang/DSKD @077337a for the kinds dskd_v1, dskd_v1_cma and uld, songmzhang/DSKDv2 @5025279 for the others in tests/golden. The
folder shared/golden beside the repository has more: see its README and those of rivals and newer in it. Where it is missing, its kinds have no
cases and their tests are skipped.
"""

from __future__ import annotations

import json
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from helpers import paths
from helpers.paths import GOLDEN

SHARED = paths.SHARED / "golden"  # two tokenizers lie there too
CASES: list[dict[str, Any]] = []
_TENSORS: dict[str, Tensor] = {}
for folder in (GOLDEN, SHARED, SHARED / "rivals", SHARED / "newer"):
    if folder.is_dir():
        known = {case["name"] for case in CASES}
        listed = json.loads((folder / "golden.json").read_text())["cases"]
        CASES += [case for case in listed if case["name"] not in known]
        _TENSORS = load_file(folder / "golden.safetensors") | _TENSORS


def cases(kind: str) -> list[dict[str, Any]]:
    return [case for case in CASES if case["kind"] == kind]


def tensors(case: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a case by their names without the case's, and those that it shares with its family (`in/…`)."""
    family = "div" if case["kind"] == "divergence" else case.get("inputs", case["name"])
    found = {}
    for prefix in (f"{family}/", f"{case['name']}/"):
        found |= {name.removeprefix(prefix): value for name, value in _TENSORS.items() if name.startswith(prefix)}
    return found
