"""Estimators of KL(q ‖ p) from the probability of one token y ~ q alone: d = log q(y) − log p(y).

What their gradient is on average over y ~ q, where A = −estimate is the advantage of a policy gradient, or the estimate itself is
differentiated:

| | policy gradient | differentiated |
|---|---|---|
| k1 = d | ∇KL(q ‖ p) | 0 |
| abs = |d| | pushes every token down | 2 ∇TV(q, p) |
| k2 = d² / 2 | pushes every token down | ∇KL(q ‖ p) |
| k3 = e^(−d) + d − 1 | ∇[KL(q ‖ p) − KL(p ‖ q)] | ∇KL(p ‖ q) |

"k1+" and "k3+" have the value of k1 and k3, and the gradient of k2.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

_LARGEST_EXPONENT = 20.0
_LARGEST_K3 = 10.0  # as released: beyond it there is no gradient


def _k3(difference: Tensor) -> Tensor:
    exponent = (-difference).clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    return (exponent.exp() + difference - 1).clamp(-_LARGEST_K3, _LARGEST_K3)


_VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "k1": lambda difference: difference,
    "abs": lambda difference: difference.abs(),
    "k2": lambda difference: 0.5 * difference.square(),
    "k3": _k3,
}


def estimate(name: str, difference: Tensor) -> Tensor:
    """The estimate of each token, of the shape of `difference`, d = log q(y) − log p(y) with the gradient of q."""
    value = _VALUES[name.removesuffix("+")](difference)
    if not name.endswith("+"):
        return value
    differentiated = _VALUES["k2"](difference)
    return value.detach() + differentiated - differentiated.detach()
