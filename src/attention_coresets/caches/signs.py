"""Draws balanced signs, r clusters times d coordinates: every coordinate's signs sum to 0 over the clusters.

How large an error other queries than the centres see depends on |S|, the largest singular value of the signs. As the
squares of all singular values sum to r d and at most r - 1 of them are not 0, |S|^2 >= r d / (r - 1).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from attention_coresets.checks import one_of

Signs = NDArray[np.float64]


def random_signs(rng: np.random.Generator, r: int, d: int) -> Signs:
    """Draws r/2 signs of each kind in random order, coordinate by coordinate: |S|^2 is about (sqrt(r) + sqrt(d))^2."""
    half = np.repeat([[1.0], [-1.0]], r // 2, axis=0)  # [r, 1]
    return rng.permuted(np.repeat(half, d, axis=1), axis=0)


def hadamard_pairs(rng: np.random.Generator, r: int, d: int) -> Signs:
    """Draws r/2 rows of Sylvester's d x d Hadamard matrix and their negatives: |S|^2 = 2 d.

    The rows are drawn from the first p, the least power of two with p >= r/2. So columns l and l + p agree, but for
    their random signs: `coordinate_subset` needs that to stay tight below half of the tokens. The order of clusters is
    random.
    """
    p = 1 << (r // 2 - 1).bit_length()
    half = sylvester(d)[rng.permutation(p)[: r // 2]] * rng.choice([-1.0, 1.0], d)
    return rng.permutation(np.concatenate([half, -half]))


def simplex(rng: np.random.Generator, r: int, d: int) -> Signs:
    """Draws the rows of the r x r Hadamard matrix less its constant column, repeated: |S|^2 = r d / (r - 1), the least.

    The rows are the vertices of a regular simplex, S S^T = d r / (r - 1) (I - 1 1^T / r). The order of clusters and the
    signs of columns are random.
    """
    vertices = rng.permutation(sylvester(r)[:, 1:])
    return np.tile(vertices, d // (r - 1)) * rng.choice([-1.0, 1.0], d)


def sylvester(size: int) -> Signs:
    """Returns Sylvester's Hadamard matrix: entry (i, j) is -1 where i and j have an odd number of 1 bits in common."""
    i = np.arange(size)
    return 1.0 - 2.0 * (np.bitwise_count(i[:, None] & i) % 2)


SIGNS: dict[str, Callable[[np.random.Generator, int, int], Signs]] = {
    "random": random_signs,
    "hadamard": hadamard_pairs,
    "simplex": simplex,
}


def check_signs(signs: str, r: int, d: int) -> None:
    """Raises ValueError for an unknown design, or numbers of clusters and dimensions that it does not have.

    "hadamard" needs d to be a power of two and r <= d. "simplex" needs r to be a power of two and r - 1 to divide d; so
    d is no power of two there, unless r = 2.
    """
    one_of("signs", signs, tuple(SIGNS))
    if signs == "hadamard" and (d & (d - 1) or r > d):
        raise ValueError(f"signs=hadamard needs d a power of two and clusters <= d, got d = {d}, clusters = {r}")
    if signs == "simplex" and (r & (r - 1) or d % (r - 1)):
        raise ValueError(
            f"signs=simplex needs clusters a power of two and d a multiple of clusters - 1, got clusters = {r}, d = {d}"
        )
