"""How small the root mean square error of any fixed-weight subset can be expected to get: a first-moment estimate."""

import math
from typing import cast

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq


def annealed_floor(gram: Float[np.ndarray, "n n"], size: int) -> float:
    """Estimates the least x^T G x of all subsets x of `size` tokens, from how many subsets there are.

    Of a random subset, x^T G x is taken for a sum of z_k^2 s_k over the eigenvalues g_k of G centred, with z_k standard
    normal and s_k = g_k size (n - size) / (n (n - 1)) the variance of its k-th coordinate. Then

        P(x^T G x <= e) <= exp(t e) prod_k (1 + 2 t s_k)^(-1/2)   for every t > 0,

    and the value returned is the e at which the least of these, times the number of subsets, is 1: fewer than one
    subset is expected below it. That the subset's mean is no longer 0 where weights differ is left out, which lowers e.

    An estimate, no proof: the sum is only close to normal. (Such estimates are called annealed in physics.)

    Cost: O(n^3).

    Source: the first-moment method; docs/minimax.md.

    Parameters
    ----------
    gram : Float[np.ndarray, "n n"]
        Positive semidefinite and not constant: the weighted kernel w_i w_j G_ij of the mean squared error.
    size : int
        0 < size < n.

    Returns
    -------
    float
        An energy; its root over the sum of the weights kept is an error.
    """
    n = len(gram)
    if not 0 < size < n:
        raise ValueError(f"size must lie between 0 and n = {n}, got {size}")
    centred = gram - gram.mean(0) - gram.mean(1, keepdims=True) + gram.mean()
    eigenvalues = np.linalg.eigvalsh(centred)
    spread = eigenvalues[eigenvalues > 1e-14 * eigenvalues[-1]] * size * (n - size) / (n * (n - 1))
    subsets = math.lgamma(n + 1) - math.lgamma(size + 1) - math.lgamma(n - size + 1)

    def energy(t: float) -> float:  # where the bound is least at this t
        return float((spread / (1 + 2 * t * spread)).sum())

    def log_expected(log_t: float) -> float:
        t = math.exp(log_t)
        return subsets + t * energy(t) - 0.5 * float(np.log1p(2 * t * spread).sum())

    unit = math.log(spread[-1])
    root = cast(float, brentq(log_expected, -20 - unit, 80 - unit))
    return energy(math.exp(root))
