"""What the steps of a matrix would take, estimated from shapes alone: steps, tokens, operations, memory, GPU-hours.

Nothing is loaded or run, so models and data need not be on this machine. docs/matrix.md has the formulas and what they leave out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dskd.errors import InputError
from harness.config.matrix import Cell, Matrix
from harness.config.sources import FileData, FinishedModel
from harness.costs.model_shapes import published_data
from harness.costs.work import Device, Work
from harness.planning.expand import Expansion
from harness.planning.sources import is_absent
from harness.runs.hub_lock import HubLock
from harness.steps.base import closure
from harness.steps.data import PreparedData


@dataclass
class Estimate:
    """All work of the chosen cells, and in `assumptions` what the figures rest on, a sentence each."""

    device: Device
    work: list[Work]
    assumptions: list[str]


def not_here(matrix: Matrix, cells: Sequence[Cell], source: str, lock: HubLock) -> list[str]:
    """The models and data of these cells that are not on this machine, as `models.gpt2: no folder '…'`.

    Only published ones, whose shapes are known (harness.costs.model_shapes); InputError for any other that is missing. A model on the
    hub is here if its small files are in the hub's cache or can be downloaded.
    """
    missing = []
    models = list(dict.fromkeys(n for cell in cells for n in (cell.teacher, cell.student) if n is not None))
    trained_on = {matrix.data_of(cell): None for cell in cells if cell.student}
    for name in models:  # which grows
        models += [base for base in matrix.bases_of(name) if base not in models]
        model = matrix.models[name]
        trained_on |= {stage.data: None for stage in model.training}
        if isinstance(model, FinishedModel) and is_absent(model, lock, matrix.where(("models", name), source)):
            where = (
                "no folder" if isinstance(model.place, Path) else "not in the hub's cache, and no network leads to it:"
            )
            missing.append(f"models.{name}: {where} '{model.place}'")
    for name in trained_on:
        data = matrix.data[name]
        if isinstance(data, FileData) and not Path(data.file).exists():
            if published_data(data.file) is None:
                raise InputError(
                    f"{matrix.where(('data', name, 'file'), source)}: no file '{data.file}'; fix: correct the path"
                )
            missing.append(f"data.{name}: no file '{data.file}'")
    return missing


def estimate(
    matrix: Matrix,
    cells: Sequence[Cell],
    device: Device | None = None,
    source: str | None = None,
    lock: HubLock | None = None,
) -> Estimate:
    """Estimate the trainings of these cells and what they need first.

    Args:
        matrix: the matrix.
        cells: those of it that are estimated.
        device: the GPU that is assumed.
        source: the matrix's file, for errors.
        lock: the commits of what comes from the hub.

    Returns:
        The work of each step, and what the figures rest on.

    Raises:
        InputError: for a model whose shape is not known, and for settings that do not go together.
    """
    device = device or Device()
    expansion = Expansion(matrix, source or matrix.name, estimate_only=True, lock=lock or HubLock())
    teachers = [step for cell in cells for step in expansion.model(cell.teacher).made_by]
    steps = closure([*teachers, *expansion.expand(cells, [])])
    sources = {step.source.name: step.source for step in steps.values() if isinstance(step, PreparedData)}
    assumptions = [f"one GPU of {device.peak_tflops:g} TFLOP/s at a utilization of {device.utilization:.0%}"]
    assumptions += dict.fromkeys(f"{each.bytes_per_token:g} bytes of text a token" for each in sources.values())
    for name, size in ((name, each.size) for name, each in sources.items()):
        lengths = f"{size.prompt_bytes:.0f} + {size.response_bytes:.0f} bytes"
        assumptions.append(f"data {name}: {size.examples:,} examples, {lengths} ({size.source})")
    assumptions.append("memory for batches of the longest examples; evaluation and rollouts not counted")
    return Estimate(device, [work for step in steps.values() for work in step.estimate(device)], assumptions)
