"""Two small trainings on a GPU and on the processor, in float32: their losses agree within 0.1 %, the rounding of sums in another order."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import report
import torch

from helpers import tiny_world
from helpers.training_runs import train_tiny

TOLERANCE = 1e-3


def loss(world: Path, output: Path, method: str, device: str, steps: int) -> float:
    """The mean loss of the last steps of a training on this device."""
    with mock.patch.object(torch.accelerator, "is_available", return_value=device != "cpu"):
        return float(train_tiny(world, output, method, steps=steps).losses["loss"])


def main() -> None:
    options = report.parser(__doc__ or "", "python tests/benchmarks/equal_losses.py --device cuda")
    options.add_argument("--device", default="cpu", help="cpu, or cuda")
    options.add_argument("--methods", nargs="+", default=["kd", "dskd-v2-eta"])
    options.add_argument("--steps", type=int, default=20)
    chosen = options.parse_args()
    datasets.disable_progress_bars()
    logging.disable(logging.WARNING)
    rows: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(torch.accelerator, "is_available", return_value=False),
    ):
        world = Path(folder) / "world"
        tiny_world.make(world)
        for method in chosen.methods:
            found = {
                name: loss(world, Path(folder) / f"{method}-{name}", method, device, chosen.steps)
                for name, device in (("here", chosen.device), ("cpu", "cpu"))
            }
            difference = abs(found["here"] - found["cpu"]) / abs(found["cpu"])
            rows.append(
                {
                    "method": method,
                    chosen.device: found["here"],
                    "on the processor": found["cpu"],
                    "difference": difference,
                }
            )
    worst = max(row["difference"] for row in rows)
    report.publish(
        "equal losses",
        rows,
        value={"difference": worst},
        bar={"difference": f"≤ {TOLERANCE:g}, relative"},
        holds=worst <= TOLERANCE,
        shapes=f"tiny models, {chosen.steps} steps",
        dtype="float32",
        file=chosen.json,
    )


if __name__ == "__main__":
    main()
