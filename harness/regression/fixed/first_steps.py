"""The first three optimizer steps of every method that ships, on the fixed models and texts.

Losses and the norm of the gradient are those of weights that are the same everywhere (step 1) or have moved by one or two steps, so
that processors differ by rounding alone. What happens after a step shows in the next one's loss: the learning rate, the optimizer.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from safetensors.torch import load_file

from dskd import methods
from dskd.data.preparation import prepare_dataset
from dskd.errors import InputError, TrainingFailed
from dskd.training.options import TrainingOptions
from dskd.training.run import train
from harness.regression.fixed.folder import CROSS, SAME, TEACHER, FixedFolder
from harness.regression.fixed.records import FirstSteps, Step

STEPS = 3
MAX_LENGTH = 128
_DIGITS = 9  # significant ones; float32 has seven
_SEED = 1
_OPTIONS = {
    "steps": STEPS,
    "batch_size": 4,
    "gradient_accumulation_steps": 2,
    "max_length": MAX_LENGTH,
    "logging_steps": 1,
}
_ROLLOUTS = {"share": 1.0, "max_new_tokens": 12}
# A mean of decisions (which token is the largest, what is clipped) jumps where rounding turns one of them.
_DECISIONS = ("accuracy", "overlap", "clipped_share")
_NOT_COMPARED = ("epoch", "step", "rollout_seconds")


def shipped_methods() -> list[str]:
    """The methods of this package; one from outside is not looked at."""
    return [name for name in sorted(methods.METHODS) if methods.own_code(name) is None]


def cell_of(method: str) -> str:
    """`student/method`: a student with another vocabulary than the teacher's, if the method takes one."""
    return f"{SAME if methods.get(method)().requires.vocabulary == 'same' else CROSS}/{method}"


def measure_first_steps(
    folder: FixedFolder, names: Sequence[str], told: Callable[[str], None] = lambda _: None
) -> Iterator[tuple[str, FirstSteps | str]]:
    """Train by each method for three steps.

    Args:
        folder: The models and texts.
        names: Of the methods.
        told: Called with the name of a cell before it is measured.

    Yields:
        The cell, and what was logged, or why the training failed.
    """
    with tempfile.TemporaryDirectory(prefix="first-steps-") as scratch:
        for cell in map(cell_of, names):
            student, method = cell.split("/")
            data = Path(scratch) / f"{student}-data"
            told(cell)
            try:
                if not data.exists():
                    prepare_dataset(
                        folder.examples,
                        data,
                        student=folder.model(student),
                        teacher=folder.model(TEACHER),
                        max_length=MAX_LENGTH,
                    )
                yield cell, _measure(folder, data, student, method, Path(scratch) / cell)
            except (InputError, TrainingFailed) as error:
                yield cell, str(error).replace(str(scratch), "")


def _measure(folder: FixedFolder, data: Path, student: str, method: str, output: Path) -> FirstSteps:
    always = methods.get(method)().requires.on_policy == "always"
    options = TrainingOptions.model_validate(_OPTIONS | ({"rollouts": _ROLLOUTS} if always else {}))
    report = train(
        data=data,
        student=folder.model(student),
        teacher=folder.model(TEACHER),
        method=method,
        options=options,
        seed=_SEED,
        output=output,
    )
    logged = _lines(output / "model" / "training_log.jsonl")
    sampled: dict[int, list[tuple[int, ...]]] = {}
    for line in _lines(output / "rollouts" / "0.jsonl"):
        sampled.setdefault(line["step"], []).append(tuple(line["tokens"]))
    steps = [Step(values=_values(line), sampled=tuple(sampled.get(line["step"], ()))) for line in logged]
    return FirstSteps(tokens=report.tokens, moved=_moved(folder.model(student), output / "model"), steps=tuple(steps))


def _values(line: dict[str, float]) -> dict[str, float]:
    return {
        name: float(f"{value:.{_DIGITS}g}")
        for name, value in line.items()
        if name not in _NOT_COMPARED and not name.endswith(_DECISIONS)
    }


def _moved(before: Path, after: Path) -> float:
    """The norm of the change of all weights."""
    old, new = (load_file(path / "model.safetensors") for path in (before, after))
    squares = sum((new[name].double() - weight.double()).square().sum().item() for name, weight in old.items())
    return float(f"{squares**0.5:.{_DIGITS}g}")


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
