"""The matrices whose plans are in tests/golden/plans: those that ship, and odd ones, with the folders that they read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from harness.config.matrix_file import shipped_matrices
from helpers.paths import GOLDEN

PLANS = GOLDEN / "plans"
ODD: dict[str, Any] = yaml.safe_load((PLANS / "odd.yaml").read_text())
SHIPPED = [
    *("quick", "referee-quick", "methods", "regression", "alignment", "worlds", "settling"),
    # Published models and data are not here: stand-ins of the same layout take their place.
    *("paper-code", "paper-dolly-gpt2", "paper-dolly-tinyllama", "paper-math", "real-cpu"),
]
NAMES = [*SHIPPED, *ODD["matrices"]]


def odd_content(name: str) -> dict[str, Any]:
    """The keys of an odd matrix; FOLDERS stands for the place of its models and data."""
    own = ODD["matrices"][name]
    content = {"name": name, **ODD["base"]}
    for key, value in own.items():
        merge = isinstance(value, dict) and key in {"models", "training"}
        content[key] = {k: v for k, v in {**content[key], **value}.items() if v is not None} if merge else value
    return content


def odd_matrix(name: str, folders: Path) -> str:
    """The path of an odd matrix, written beside the folders that it names."""
    path = folders / f"{name}.yaml"
    path.write_text(yaml.safe_dump(odd_content(name), sort_keys=False).replace("FOLDERS", str(folders)))
    return str(path)


def located(name: str, folders: Path) -> tuple[str, dict[str, str]]:
    """A matrix, and the variables that say where its models and data are."""
    matrix = name if name in SHIPPED else odd_matrix(name, folders)
    text = shipped_matrices()[name].read_text() if name in SHIPPED else Path(matrix).read_text()
    variables = {"HARNESS_DATA": folders / "data", "HARNESS_MODELS": folders / "models", "GEMMA": folders / "teacher"}
    return matrix, {key: str(value) for key, value in variables.items() if f"${{{key}}}" in text}
