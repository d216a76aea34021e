"""Bar P1: the fused dual-space loss against the unfused one, in memory, time, value and gradients; both in one process."""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import numpy as np
import report
import torch

from dskd import methods
from dskd.losses.chunked import chunk_size, chunked_counts, chunked_loss
from dskd.losses.tokens import TokenBatch
from dskd.modeling.lm_head import Head
from dskd.tokenization.vocabulary import SharedVocabulary
from helpers.token_batches import token_batch


def make(
    vocabulary: int, tokens: int, hidden: int, teacher_hidden: int, device: str = "cpu"
) -> tuple[Any, TokenBatch, list[Any]]:
    """dskd-v2 between two random heads whose logits are as large as a trained model's."""
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    def labels() -> torch.Tensor:
        return torch.randint(0, vocabulary, (tokens,), generator=generator, device=device)

    student = Head((random(vocabulary, hidden) / hidden**0.5 * 3).requires_grad_(), None, 1.0, 0.0, vocabulary)
    teacher = Head(random(vocabulary, teacher_hidden) / teacher_hidden**0.5 * 3, None, 1.0, 0.0, vocabulary)
    ids = np.arange(vocabulary)
    method = methods.get("dskd-v2")()
    projectors = method.prepare(student, teacher, SharedVocabulary(ids, ids, ids, same=True))
    # The teacher's states are near what the student's project to, so that part of the predictions agree, as in training.
    states = random(tokens, hidden)
    seen = states @ projectors.student_to_teacher.T + 0.1 * random(tokens, teacher_hidden)
    batch = token_batch(
        student,
        states.requires_grad_(),
        labels(),
        teacher,
        seen,
        labels(),
        torch.arange(tokens, device=device),
        torch.arange(tokens, device=device),
    )
    return method, batch, [projectors.teacher_to_student]


def forward(side: str, method: Any, batch: TokenBatch, totals: dict[str, torch.Tensor], parameters: Any) -> Any:
    if side != "unfused":
        return chunked_loss(method, batch, totals if side == "fused" else None, parameters)[0]
    terms = method.terms(batch)
    return method.objective({name: term.total / totals[name].clamp_min(1.0) for name, term in terms.items()})


def forward_and_backward(
    side: str,
    *,
    chosen: Any,
    method: Any,
    batch: TokenBatch,
    totals: dict[str, torch.Tensor],
    parameters: Any,
    leaves: Any,
) -> None:
    with report.autocast(chosen):
        loss = forward(side, method, batch, totals, parameters)
    torch.autograd.grad(loss, leaves)


def memory(
    side: str, vocabulary: int, tokens: int, hidden: int, teacher_hidden: int, chosen: Any
) -> tuple[float, float]:
    """(bytes kept per token from the forward to the backward, peak bytes), both above the gradients of the head."""
    method, batch, parameters = make(vocabulary, tokens, hidden, teacher_hidden, chosen.device)
    with report.autocast(chosen):
        totals = chunked_counts(method, batch)
    head = 4 * vocabulary * hidden
    gc.collect()
    with report.peak_memory(chosen.device) as first, report.autocast(chosen):
        loss = forward(side, method, batch, totals, parameters)
    with report.peak_memory(chosen.device) as backward:
        loss.backward()
    peak = max(first.peak, first.kept + backward.peak)
    # The fused forward already holds the head's gradient, the unfused makes it in the backward.
    kept = first.kept - (head if side == "fused" else 0)
    return max(kept, 0) / tokens, float(peak - head)


def main() -> None:
    options = report.parser(__doc__ or "", "python tests/benchmarks/p1_fused_loss.py --vocabulary 50257 --json P1.json")
    options.add_argument("--vocabulary", type=int, nargs="+", default=[50_257, 151_936])
    options.add_argument("--tokens", type=int, nargs="+", default=[512, 1024, 2048, 4096], help="for the fused peak")
    options.add_argument("--compared-tokens", type=int, default=1_024, help="for what both sides run")
    options.add_argument(
        "--hidden", type=int, nargs=2, default=[512, 1024], help="student's and teacher's, for the times"
    )
    options.add_argument("--repeats", type=int, default=3)
    chosen = report.with_device(options).parse_args()
    half = chosen.dtype == "bfloat16"
    # Of bfloat16 the sums differ by rounding: a loss is a mean of numbers with eight bits.
    loss_bar, cosine_bar = (2e-2, 0.999) if half else (1e-5, 0.9999)
    rows: list[dict[str, Any]] = []
    value = dict.fromkeys(("kept_share", "peak_growth", "time_ratio", "time_ratio_counts_unknown", "loss_error"), 0.0)
    value["gradient_cosine"] = 1.0
    for vocabulary in chosen.vocabulary:
        method, batch, parameters = make(vocabulary, chosen.compared_tokens, *chosen.hidden, chosen.device)
        with report.autocast(chosen):
            totals = chunked_counts(method, batch)
        leaves = [batch.student.hidden, batch.student.head.weight, *parameters]
        results = {}
        for side in ("unfused", "fused"):
            with report.autocast(chosen):
                loss = forward(side, method, batch, totals, parameters)
            results[side] = loss.item(), torch.autograd.grad(loss, leaves)
        error = abs(results["fused"][0] - results["unfused"][0]) / abs(results["unfused"][0])
        cosine = min(
            torch.nn.functional.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0).item()
            for a, b in zip(results["fused"][1], results["unfused"][1], strict=True)
        )
        del results

        step = partial(
            forward_and_backward,
            chosen=chosen,
            method=method,
            batch=batch,
            totals=totals,
            parameters=parameters,
            leaves=leaves,
        )
        sides = ("unfused", "fused", "fused, counts unknown")
        seconds = report.alternate({side: partial(step, side) for side in sides}, chosen.repeats, chosen.device)
        chunk = chunk_size(batch, None)
        del batch, leaves, parameters, method, step
        # Memory does not depend on the hidden sizes; small ones make many tokens affordable.
        kept, peak = memory("unfused", vocabulary, chosen.compared_tokens, 32, 48, chosen)
        fused = {tokens: memory("fused", vocabulary, tokens, 32, 48, chosen) for tokens in chosen.tokens}
        peaks = [figures[1] for figures in fused.values()]
        rows.append(_row(vocabulary, "unfused", chosen.compared_tokens, 0, seconds["unfused"], kept, peak))
        for tokens, figures in fused.items():
            timed = seconds["fused"] if tokens == chosen.compared_tokens else float("nan")
            rows.append(_row(vocabulary, "fused", tokens, chunk, timed, *figures))
        found = {
            "kept_share": fused[chosen.tokens[-1]][0] / kept,
            "peak_growth": max(peaks) / peaks[0] - 1,
            "time_ratio": seconds["fused"] / seconds["unfused"],
            "time_ratio_counts_unknown": seconds["fused, counts unknown"] / seconds["unfused"],
            "loss_error": error,
        }
        value |= {name: max(value[name], figure) for name, figure in found.items()}
        value["gradient_cosine"] = min(value["gradient_cosine"], cosine)
    holds = (
        value["kept_share"] <= 0.05
        and value["peak_growth"] <= 0.10
        and value["time_ratio"] <= 1.0
        and value["loss_error"] <= loss_bar
        and value["gradient_cosine"] >= cosine_bar
    )
    student, teacher = chosen.hidden
    report.publish(
        "P1",
        rows,
        value=value,
        bar={
            "kept_share": "≤ 0.05 of the bytes a token that the unfused loss keeps for its backward",
            "peak_growth": f"≤ 0.10 from {chosen.tokens[0]} to {chosen.tokens[-1]} tokens, above the head's gradient",
            "time_ratio": "≤ 1.0, forward and backward, the step's counts given to both",
            "time_ratio_counts_unknown": "none: the fused loss finds them itself, as in a step of one micro-batch",
            "loss_error": f"≤ {loss_bar:g}, relative",
            "gradient_cosine": f"≥ {cosine_bar:g}, the least of hidden states, head and projector",
        },
        holds=holds,
        shapes=f"dskd-v2, one vocabulary, hidden {student} and teacher's {teacher} for the times, 32 and 48 for the memory",
        dtype=f"{chosen.dtype} on {chosen.device}" if chosen.device != "cpu" or half else "float32",
        file=chosen.json,
    )


def _row(
    vocabulary: int, side: str, tokens: int, chunk: int, seconds: float, kept: float, peak: float
) -> dict[str, Any]:
    return {
        "vocabulary": vocabulary,
        "loss": side,
        "tokens": tokens,
        "chunk": chunk or "–",
        "seconds": round(seconds, 3) if seconds == seconds else "–",
        "kept, KiB a token": round(kept / 2**10, 2),
        "peak above the head's gradient, MiB": round(peak / 2**20, 1),
    }


if __name__ == "__main__":
    main()
