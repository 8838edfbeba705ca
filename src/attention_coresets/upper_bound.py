"""Bounds from above the error of the tilted Gram-Schmidt walk (proof in docs/theory.md, section Balancing)."""

import math

from attention_coresets.theory import check_rho

_LARGEST_EXPONENT = 600.0  # e^600 exceeds any size, so that the bound is 2 max|v| from there on


def balancing_constant(d: int, dv: int, rho: float, sigma: float, delta: float = 1.0) -> float:
    """Returns the proven ceiling of m err / (max|v| sqrt(d) e^{rho sigma}) for one tilted walk to m tokens.

    With x = rho sigma it is 2 sqrt(L / d), where

        L = d log(1 + 4 x (1 + (x + 1/2) / d)) + dv log 2 + log 4 + 2 log(1 / delta).

    It grows as sqrt(log(2 + rho sigma)) and hardly depends on d. Source: docs/theory.md.

    Parameters
    ----------
    d, dv : int
        Dimensions of keys and of values; the ranks of the centred keys and of the values serve as well.
    rho : float
        Radius of the ball of queries.
    sigma : float
        Spread of the tilt; the radius R of the keys in the unweighted model.
    delta : float
        A walk fails with at most this probability. At 1 the ceiling holds for the mean over walks.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For dimensions below 1, rho that is not positive and finite, sigma below 0, or delta outside (0, 1].
    """
    rho = check_rho(rho)
    if min(d, dv) < 1:
        raise ValueError(f"d and dv must be at least 1, got {d} and {dv}")
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma must be finite and at least 0, got {sigma}")
    if not 0 < delta <= 1:
        raise ValueError(f"delta must lie in (0, 1], got {delta}")
    x = rho * sigma
    entropy = d * math.log1p(4 * x * (1 + (x + 0.5) / d)) + dv * math.log(2) + math.log(4) - 2 * math.log(delta)
    return 2 * math.sqrt(entropy / d)


def balancing_bound(
    d: int, dv: int, size: int, rho: float, sigma: float, *, delta: float = 1.0, values: float = 1.0
) -> float:
    """Returns what sup over |q| <= rho of |Attn(q) - Attn_coreset(q)| is at most, for one tilted walk to `size` tokens.

    It is values * min(2, `balancing_constant` * sqrt(d) e^{rho sigma} / size): with probability 1 - delta, or in the
    mean over walks where delta is 1. The 2 is what any coreset keeps to, since both attentions average values. Keys may
    be of any norm. Tokens may be capped (pi_i = 1).

    It holds for `gram_schmidt_walk` in one walk, at its own scale, on the Gram matrix, with a ridge of at most 0.006
    and without refinement, in exact arithmetic; for the unweighted model with R in place of sigma. Source:
    docs/theory.md.

    Parameters
    ----------
    d, dv, rho, sigma, delta
        As in `balancing_constant`.
    size : int
        Tokens of the coreset. Where tokens are capped, pi_i = min(1, c p_i), c would serve as well and give less.
    values : float
        Largest norm of a value.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As `balancing_constant`, and for a size or values that are not above 0.
    """
    if not (size > 0 and values > 0):
        raise ValueError(f"size and values must be above 0, got {size} and {values}")
    constant = balancing_constant(d, dv, rho, sigma, delta)
    return values * min(2.0, constant * math.sqrt(d) * math.exp(min(rho * sigma, _LARGEST_EXPONENT)) / size)
