"""The plain win rate of A: the mean preference over prompts, ties as half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from harness.statistics.intervals import bootstrap_interval, wilson_interval


def win_rate(preferences: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return {"value", "ci95", "ci_method", "p", "prompts"} of the preferences for A, by prompt: 1, 0, or 0.5 for a tie.

    Several pairs of a prompt are averaged first, as they are not independent. The interval is a percentile bootstrap over prompts;
    where all prompts are alike, Wilson's. `p` is of the exact sign test over the prompts that are no ties. All None without prompts.
    """
    from scipy.stats import binomtest

    values = [fmean(each) for each in preferences.values() if each]
    if not values:
        return {"value": None, "ci95": None, "ci_method": None, "p": None, "prompts": 0}
    if len(set(values)) > 1:
        method, (low, high) = "bootstrap over prompts", bootstrap_interval(values)
    else:
        method, (low, high) = "wilson", wilson_interval(sum(values), len(values))
    for_a, for_b = sum(value > 0.5 for value in values), sum(value < 0.5 for value in values)
    p = float(binomtest(for_a, for_a + for_b).pvalue) if for_a + for_b else 1.0
    ends = [100 * low, 100 * high]
    return {"value": 100 * fmean(values), "ci95": ends, "ci_method": method, "p": p, "prompts": len(values)}
