"""What each construction's docstring says of its cost, as the largest exponents of n, m and d, and which are left out.

A cost of O(n^2 d + n m) reads n: 2, m: 1, d: 1. Logarithms count as 0.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Exponents of the time and of the memory beyond the input, by variable."""

    time: dict[str, float]
    memory: dict[str, float]


def cost(time: tuple[float, float, float], memory: tuple[float, float, float]) -> Cost:
    """From the exponents of n, m, d."""
    return Cost(*(dict(zip("nmd", powers, strict=True)) for powers in (time, memory)))


_LINEAR = cost((1, 0, 0), (1, 0, 0))
_TILT = cost((1, 0, 1), (1, 0, 1))
_GRAM_PAIRS = cost((2, 0, 1), (2, 0, 1))

STATED: dict[str, Cost] = {
    "uniform": _LINEAR,
    "paired_coin": _TILT,
    "tilted_draws": _TILT,
    "gram_schmidt_walk": cost((3, 0, 1), (2, 0, 1)),
    "self_balancing_walk": _GRAM_PAIRS,
    "kernel_halving": _GRAM_PAIRS,
    "greedy": _GRAM_PAIRS,
}

# name -> why it has no row
LEFT_OUT: dict[str, str] = {
    "optimum": "an exhaustive search, for caches of some 20 tokens",
}
