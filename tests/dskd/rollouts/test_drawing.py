"""Tokens that are drawn in float32 where that is sure: the same ones as in float64, also at the boundaries between tokens."""

from __future__ import annotations

import pytest
import torch

from dskd.rollouts import drawing
from dskd.rollouts.drawing import draw, draw_in_float64


def _logits(vocabulary: int, spread: float, rows: int = 48, ties: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = spread * torch.randn(rows, vocabulary, generator=generator)
    logits[::5, ::3] = -torch.inf
    return logits.bfloat16().float() if ties else logits


def _numbers(rows: int) -> torch.Tensor:
    return torch.rand(rows, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("vocabulary", [1, 5, 127, 128, 129, 3000, 50_257])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.5])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3])
@pytest.mark.parametrize(("spread", "ties"), [(0.5, False), (3.0, False), (3.0, True), (40.0, False)])
def test_tokens_are_those_of_float64(
    vocabulary: int, temperature: float, top_p: float, spread: float, ties: bool
) -> None:
    logits = _logits(vocabulary, spread, rows=6 if vocabulary > 5000 else 48, ties=ties)
    logits[:, 0] = 0.1  # one of each row is possible
    numbers = _numbers(len(logits))
    found = draw(logits, numbers, temperature, top_p)
    assert torch.equal(found, draw_in_float64(logits, numbers, temperature, top_p))
    assert logits.gather(1, found.unsqueeze(1)).isfinite().all()


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_numbers_beside_the_boundaries_fall_on_the_side_that_float64_says(top_p: float) -> None:
    logits = _logits(300, 2.0, rows=1, ties=True)[0]
    p = logits.double().softmax(-1)
    if top_p < 1:
        p = p.sort(descending=True, stable=True).values
        p = p[p.cumsum(-1) - p < top_p]
        p = p / p.sum()
    boundaries = p.cumsum(-1)[:-1]
    for distance in (0.0, 1e-15, -1e-15, 1e-9, -1e-9, 1e-6, -1e-6):
        numbers = (boundaries + distance).clamp(0.0, 1 - 1e-16)
        rows = logits.expand(len(numbers), -1)
        assert torch.equal(draw(rows, numbers, 1.0, top_p), draw_in_float64(rows, numbers, 1.0, top_p)), distance


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_float64_is_needed_for_few(monkeypatch: pytest.MonkeyPatch, top_p: float) -> None:
    logits, numbers = _logits(32_000, 4.0), _numbers(48)
    asked = []
    monkeypatch.setattr(
        drawing, "draw_in_float64", lambda rows, *rest: asked.append(len(rows)) or draw_in_float64(rows, *rest)
    )
    draw(logits, numbers, 1.0, top_p)
    assert sum(asked) <= 5


def test_the_error_of_a_share_is_far_below_the_distance_that_is_called_sure() -> None:
    for spread in (0.3, 3.0, 30.0):
        logits = _logits(32_000, spread, rows=8)
        sums = drawing._block_sums(drawing._weights(logits, 0.7))
        exact = (logits.double() / 0.7).softmax(-1).cumsum(-1)[:, 127::128]
        shares = (sums / sums[:, -1:])[:, : exact.shape[1]]
        assert (shares - exact).abs().max() < drawing._UNSURE / 4
