"""Texts that are aligned together are aligned as each alone, also where a normaliser leaves spans that are out of order."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dskd.tokenization.alignment import UNKNOWN, align, byte_groups
from dskd.tokenization.batch_alignment import align_many


@st.composite
def _spans(draw: st.DrawFn) -> np.ndarray:
    """Tokens over up to 12 bytes: mostly one after the other, some without bytes, some on bytes of others, some not in order."""
    size = draw(st.integers(0, 12))
    cuts = sorted(draw(st.sets(st.integers(1, max(size - 1, 1)), max_size=size)) - {size})
    spans = [[first, last] for first, last in zip([0, *cuts], [*cuts, size], strict=True)] if size else []
    for k, span in enumerate(spans):
        match draw(st.sampled_from(["as it is"] * 8 + ["unknown", "empty", "as before", "longer"])):
            case "unknown":
                span[:] = UNKNOWN, UNKNOWN
            case "empty":
                span[1] = span[0]
            case "as before" if k:
                span[:] = spans[k - 1]
            case "longer":
                span[1] += 2
    kept = draw(st.integers(0, len(spans)))
    return np.array(draw(st.sampled_from([spans, spans, spans[:kept], spans[::-1]])), dtype=np.int64).reshape(-1, 2)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(_spans(), _spans()), max_size=8))
def test_together_and_alone_are_the_same(texts: list[tuple[np.ndarray, np.ndarray]]) -> None:
    found = align_many([teacher for teacher, _ in texts], [student for _, student in texts])
    assert len(found) == len(texts)
    for (pairs, groups), spans in zip(found, texts, strict=True):
        for together, alone in zip((*pairs, *groups), (*align(*spans), *byte_groups(*spans)), strict=True):
            assert together.dtype == alone.dtype
            assert together.tolist() == alone.tolist()
