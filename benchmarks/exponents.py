"""Exponents of cost: the slope of log cost against log size, with its standard error, and whether it is as stated."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SLACK = 0.25  # an exponent this far above the stated one is no evidence against it: logarithms, caches, small sizes
_VAGUE = 0.5  # a standard error beyond this decides nothing


@dataclass(frozen=True)
class Exponent:
    """cost ∝ x^value, from `points` sizes; `error` is the standard error of the slope."""

    value: float
    error: float
    points: int


def exponent(x: Sequence[float], cost: Sequence[float]) -> Exponent | None:
    """Least squares on logarithms over the larger half of the sizes (at least three); None with fewer than three.

    Small sizes are left out because a fixed cost flattens them.
    """
    order = np.argsort(x)
    used = order[-max(3, math.ceil(len(order) / 2)) :]
    if len(used) < 3:
        return None
    a, b = np.log(np.asarray(x, dtype=float)[used]), np.log(np.asarray(cost, dtype=float)[used])
    spread = np.square(a - a.mean()).sum()
    slope = ((a - a.mean()) * b).sum() / spread
    left = b - b.mean() - slope * (a - a.mean())
    return Exponent(float(slope), float(np.sqrt(np.square(left).sum() / (len(used) - 2) / spread)), len(used))


def verdict(found: Exponent | None, stated: float | None) -> str:
    """Whether the cost grows as stated, two standard errors and SLACK granted; below it is no fault."""
    if found is None:
        return "too few sizes"
    if found.error > _VAGUE:
        return "too noisy"
    if stated is None:
        return "nothing stated"
    if found.value - 2 * found.error > stated + SLACK:
        return "ABOVE"
    return "below" if found.value + 2 * found.error < stated - SLACK else "as stated"
