"""Bar P2: the projectors' least squares by the Gram matrix against torch.linalg.pinv (an SVD): time, error, memory kept.

Without --model the heads are random, with a spectrum as trained ones have it: singular values that decay by a power law, one far
larger direction that all tokens share, and rows of unequal length. The default is near Gemma 3 270M's head, whose condition number
is 60, and 30 without the common direction. A second head is so badly conditioned that products are taken in float64. The reference
is solved in float64 by the normal equations, whose own error, float64's rounding times the squared condition number, is far below
what is compared. Seconds are the processor's and not the clock's, because a shared machine runs other things.
"""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

import report
import torch
from safetensors import safe_open

from dskd.modeling.projectors import LeastSquares, Rows, _condition


def trained_like(rows: int, columns: int, condition: float, generator: torch.Generator) -> torch.Tensor:
    """A head [rows, columns] with such a spectrum; `condition` is that without the common direction."""
    rotation, _ = torch.linalg.qr(torch.randn(columns, columns, generator=generator))
    exponent = torch.log(torch.tensor(condition)) / torch.log(torch.tensor(float(columns)))
    decay = torch.arange(1, columns + 1, dtype=torch.float32) ** -exponent
    directions = torch.randn(rows, columns, generator=generator) * decay
    lengths = torch.exp(0.3 * torch.randn(rows, 1, generator=generator))
    common = torch.zeros(columns)
    common[0] = 2.0
    return ((directions + common) * lengths) @ rotation.T


def real_head(folder: Path) -> torch.Tensor:
    """The output head of a model folder: lm_head, or where it is tied the embedding."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names = list(tensors.keys())
            for ending in ("lm_head.weight", "embed_tokens.weight", "wte.weight"):
                for name in names:
                    if name.endswith(ending):
                        return tensors.get_tensor(name)
    raise SystemExit(f"{folder}: no output head in its *.safetensors; fix: give the folder of a causal language model")


def reference(matrix: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, float]:
    """(pinv(matrix) target in float64, condition number of the matrix)."""
    gram = torch.zeros(matrix.shape[1], matrix.shape[1], dtype=torch.float64)
    right = torch.zeros(matrix.shape[1], target.shape[1], dtype=torch.float64)
    for part, other in zip(matrix.split(8_192), target.split(8_192), strict=True):
        gram += part.double().T @ part.double()
        right += part.double().T @ other.double()
    factor = torch.linalg.cholesky(gram)
    return torch.cholesky_solve(right, factor), _condition(gram, factor) ** 0.5


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


def timed(run: Any) -> tuple[Any, float]:
    start = time.process_time()
    result = run()
    return result, time.process_time() - start


def main() -> None:
    options = report.parser(
        __doc__, "python tests/benchmarks/p2_projectors.py --rows 50257 --columns 768 --json P2.json"
    )
    options.add_argument("--rows", type=int, default=50_257, help="tokens of the vocabulary")
    options.add_argument("--columns", type=int, default=768, help="hidden size of the head to invert")
    options.add_argument("--other-columns", type=int, default=512, help="hidden size of the other head")
    options.add_argument("--condition", type=float, default=30.0, help="of the random head, less the common direction")
    options.add_argument("--bad-condition", type=float, default=1000.0, help="of the badly conditioned random head")
    options.add_argument("--model", type=Path, metavar="DIR", help="invert this model's head instead")
    chosen = options.parse_args()
    generator = torch.Generator().manual_seed(0)
    rows: list[dict[str, Any]] = []
    value: dict[str, float] = {"error": 0.0, "kept_share": 0.0}
    if chosen.model is not None:
        heads = {str(chosen.model.name): real_head(chosen.model).float()}
    else:
        heads = {
            "as a trained one": trained_like(chosen.rows, chosen.columns, chosen.condition, generator),
            "badly conditioned": trained_like(chosen.rows, chosen.columns, chosen.bad_condition, generator),
        }
    for name, matrix in heads.items():
        count, columns = matrix.shape
        mixing = torch.randn(columns, chosen.other_columns, generator=generator) / columns**0.5
        # The other head sees much the same tokens: a part of it is a map of this one.
        noise = trained_like(count, chosen.other_columns, 10.0, generator)
        target = matrix @ mixing
        target += 0.5 * noise * (target.norm() / noise.norm())
        del noise
        expected, condition = reference(matrix, target)
        order = torch.arange(count)
        found: dict[str, tuple[float, float, float, float]] = {}

        gc.collect()
        with report.PeakMemory() as memory:
            inverse, seconds = timed(lambda: torch.linalg.pinv(matrix))  # noqa: B023
            product, step = timed(lambda: inverse @ target)  # noqa: B023, F821 - deleted below, after its use
        found["torch.linalg.pinv"] = seconds + step, step, error(product, expected), inverse.numel() * 4
        peaks = {"torch.linalg.pinv": memory.peak}
        del inverse, product
        gc.collect()

        with report.PeakMemory() as memory:
            solver, seconds = timed(lambda: LeastSquares(Rows(matrix, order)))  # noqa: B023
            solution, step = timed(lambda: solver.solve(Rows(target, order)))  # noqa: B023
        kept = solver.inverse_gram.numel() * solver.inverse_gram.element_size()
        found["Gram matrix"] = seconds + step, step, error(solution, expected), kept
        peaks["Gram matrix"] = memory.peak
        for side, (whole, step, wrong, kept) in found.items():
            rows.append(
                {
                    "head": name,
                    "shape": f"{count:,} × {columns:,}",
                    "condition": condition,
                    "by": side,
                    "products in": str(solver.dtype).removeprefix("torch.") if side == "Gram matrix" else "float32",
                    "CPU seconds": round(whole, 2),
                    "again each step": round(step, 3),
                    "relative error": f"{wrong:.1e}",
                    "kept, MiB": round(kept / 2**20, 1),
                    "peak, MiB": round(peaks[side] / 2**20),
                }
            )
        ours, theirs = found["Gram matrix"], found["torch.linalg.pinv"]
        ending = "_badly_conditioned" if name == "badly conditioned" else ""
        value[f"time_ratio{ending}"] = theirs[0] / ours[0]
        value[f"step_ratio{ending}"] = theirs[0] / ours[1]
        value["error"] = max(value["error"], ours[2])
        value["kept_share"] = max(value["kept_share"], ours[3] / theirs[3])
    bars = {
        "time_ratio": "≥ 4 times as fast as by the SVD, from a trained head to a projector",
        "step_ratio": "none: one SVD against what a later step costs (a new student head, the teacher's factor kept)",
        "time_ratio_badly_conditioned": "none: the same where products are in float64, whose SVD would need it too",
        "step_ratio_badly_conditioned": "none",
        "error": "≤ 1e-4 relative to a float64 solution, the largest of the heads",
        "kept_share": "< 0.1 of the pseudo-inverse's bytes: nothing as long as the vocabulary is kept",
    }
    report.publish(
        "P2",
        rows,
        value=value,
        bar={key: text for key, text in bars.items() if key in value},
        holds=value["time_ratio"] >= 4 and value["error"] <= 1e-4 and value["kept_share"] < 0.1,
        shapes=f"{'the head of ' + chosen.model.name if chosen.model else 'random heads with a spectrum like trained ones'}, "
        f"solved for a head of {chosen.other_columns} columns",
        dtype="float32",
        file=chosen.json,
    )


if __name__ == "__main__":
    main()
