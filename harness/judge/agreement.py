"""Agreement of two series of verdicts on the same things: the share that is equal, and Cohen's kappa."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from harness.judge.verdict import Winner


def agreement(pairs: Iterable[tuple[Winner | None, Winner | None]], categories: Sequence[str]) -> dict[str, Any]:
    """Return how far the first of each two agrees with the second: {"n", "share", "kappa", "kappa_ci95", "unreadable"}.

    `n` are those where both could be read; `share` is in per cent.
    Kappa is 1 for perfect agreement and 0 for what chance alone would give; None where every verdict is the same, as chance then
    agrees always.
    """
    import numpy as np
    from statsmodels.stats.inter_rater import cohens_kappa

    every = list(pairs)
    read = [pair for pair in every if None not in pair]
    table = np.zeros((len(categories), len(categories)))
    for first, second in read:
        table[categories.index(str(first)), categories.index(str(second))] += 1
    result: dict[str, Any] = {"n": len(read), "share": None, "kappa": None, "kappa_ci95": None}
    if read:
        result["share"] = 100 * float(np.trace(table)) / len(read)
        if np.count_nonzero(table.sum(axis=0) + table.sum(axis=1)) > 1:
            with np.errstate(invalid="ignore", divide="ignore"):  # its error is 0 where nothing agrees or all does
                kappa = cohens_kappa(table)
            result["kappa"] = float(kappa.kappa)
            low, high = float(kappa.kappa_low), float(kappa.kappa_upp)
            result["kappa_ci95"] = None if math.isnan(low) else [max(-1.0, low), min(1.0, high)]
    return {**result, "unreadable": len(every) - len(read)}
