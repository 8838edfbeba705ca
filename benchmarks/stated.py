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


# Where a docstring states no memory, it is that of the input: n d.
_ORDER = cost((1, 0, 0), (1, 0, 0))
_INPUT = cost((1, 0, 1), (1, 0, 1))
_GRAM_PAIRS = cost((2, 0, 1), (2, 0, 1))

STATED: dict[str, Cost] = {
    "uniform": _ORDER,
    "paired_coin": _INPUT,
    "tilted_draws": _INPUT,
    "gram_schmidt_walk": cost((3, 0, 1), (2, 0, 1)),
    "self_balancing_walk": _GRAM_PAIRS,
    "kernel_halving": _GRAM_PAIRS,
    "greedy": _GRAM_PAIRS,
    "sensitivity_draws": cost((2, 0, 1), (1, 0, 1)),
    "herding": cost((2, 1, 1), (1, 0, 1)),
    "frank_wolfe": cost((2, 2, 1), (1, 1, 1)),
    "nystrom": cost((1, 3, 1), (1, 1, 1)),  # some 20 solves of m equations are m^3
    "k_center": cost((1, 1, 1), (1, 0, 1)),
    "subgen": _INPUT,
    "thinformer": cost((1, 0, 1), (1, 0, 1)),  # n log n
    "two_stage": cost((1, 2, 1), (1, 0, 1)),  # up to 16 m tokens it is its second stage alone
    "balancekv": cost((1, 1, 1), (1, 1, 1)),  # blocks of 2 m tokens
    "query_walk": cost((3, 0, 1), (2, 0, 1)),
    "query_exchange": cost((2, 3, 1), (2, 1, 1)),
    "streaming_llm": _ORDER,
    "h2o": _INPUT,
    "snapkv": _INPUT,
    "tova": _INPUT,
    "knorm": _INPUT,
    "keydiff": _INPUT,
    "expected_attention": cost((1, 0, 2), (1, 0, 1)),
    "curdkv": _INPUT,
}

# name -> why it has no row
LEFT_OUT: dict[str, str] = {
    "optimum": "an exhaustive search, for caches of some 20 tokens",
    "coordinate_subset": "for signed clusters alone",
}
