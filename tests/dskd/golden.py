"""Losses and gradients that the authors' own code gives on small random inputs.

songmzhang/DSKD @077337a for the kind dskd_v1, songmzhang/DSKDv2 @5025279 for the others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "golden"
CASES: list[dict[str, Any]] = json.loads((FOLDER / "golden.json").read_text())["cases"]
_TENSORS = load_file(FOLDER / "golden.safetensors")


def cases(kind: str) -> list[dict[str, Any]]:
    return [case for case in CASES if case["kind"] == kind]


def tensors(case: dict[str, Any]) -> dict[str, Tensor]:
    found = {}
    for prefix in (
        "div/" if case["kind"] == "divergence" else None,
        case["name"] + "/",
    ):  # divergences share their inputs
        if prefix is not None:
            found |= {name.removeprefix(prefix): value for name, value in _TENSORS.items() if name.startswith(prefix)}
    return found
