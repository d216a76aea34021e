"""The win rate at equal length: a logistic regression of the preference on the difference in length.

After AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475). With y the preference for A on a pair (1, 0, ties 0.5) and d the length of
A's answer less that of B's, in characters:

    logit E[y] = θ + φ · tanh(d / s),    s the standard deviation of d
    length-controlled win rate = 100 / (1 + exp(-θ))

Theirs has a third term for the difficulty of each instruction, fitted over many models; two models cannot tell it, so ours has none.
A prior of N(0, 10²) on θ and φ (a ridge) keeps both finite where length or quality decides every pair, and moves nothing else.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from harness.statistics.intervals import CONFIDENCE

PRIOR_SD = 10.0


@dataclass(frozen=True)
class LengthControl:
    """`win_rate` and its interval are 0 to 100.

    `overlap`: equal length is within what was seen, as each side has the longer answer somewhere, or neither has.
    """

    win_rate: float
    ci95: tuple[float, float]
    theta: float
    phi: float
    scale: float
    overlap: bool


def length_controlled(preferences: ArrayLike, differences: ArrayLike, groups: Sequence[object]) -> LengthControl:
    """Fit the regression.

    Args:
        preferences: `[pairs]`, 1 for A, 0 for B, 0.5 for a tie.
        differences: `[pairs]`, the length of A's answer less that of B's.
        groups: `[pairs]`, the prompt of each: pairs of one prompt are not independent.

    The interval takes the larger of two standard errors of θ: the model's, and the sandwich that is robust to ties and to several
    pairs of a prompt. The sandwich alone is far too small where almost all pairs are alike. ValueError without pairs.
    """
    import statsmodels.api as sm  # here, because it takes a second
    from scipy.special import expit
    from statsmodels.tools.sm_exceptions import ConvergenceWarning

    y, d = np.asarray(preferences, dtype=np.float64), np.asarray(differences, dtype=np.float64)
    if y.ndim != 1 or y.shape != d.shape or y.size == 0:
        raise ValueError(f"preferences of shape {y.shape}, differences of shape {d.shape}: expected [n] with n > 0")
    scale = float(d.std()) or 1.0
    columns = np.column_stack([np.ones_like(d), np.tanh(d / scale)])
    with warnings.catch_warnings():
        # Its optimizer says so where it cannot improve the last digits.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = sm.GLM(y, columns, family=sm.families.Binomial())
        ridge = 1 / (y.size * PRIOR_SD**2)  # the penalty of statsmodels is on the mean log-likelihood
        fitted = model.fit_regularized(alpha=np.full(2, ridge), L1_wt=0.0)
    theta, phi = map(float, fitted.params)
    expected = expit(columns @ fitted.params)
    inverse = np.linalg.inv((columns.T * (expected * (1 - expected))) @ columns + np.eye(2) / PRIOR_SD**2)
    scores = _by_group(columns * (y - expected)[:, None], groups)
    sandwich = inverse @ (scores.T @ scores) @ inverse
    error = float(np.sqrt(max(inverse[0, 0], sandwich[0, 0])))
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * error
    low, win_rate, high = (100 * float(expit(theta + step)) for step in (-half, 0, half))
    return LengthControl(win_rate, (low, high), theta, phi, scale, bool((d > 0).any() == (d < 0).any()))


def _by_group(values: np.ndarray, groups: Sequence[object]) -> np.ndarray:
    """Sums of `values` [pairs, k] over the pairs of each group: [groups, k]."""
    place = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    sums = np.zeros((len(place), values.shape[1]))
    np.add.at(sums, [place[group] for group in groups], values)
    return sums
