"""The reference peer: a Gram-Schmidt walk as one would write it in NumPy, one rank-one downdate a frozen token.

Same law, order of pivots and use of uniforms as `coresets.walks.walk.walk_signs`, so that the two take the same path.
"""

import numpy as np
from jaxtyping import Bool, Float

_FREEZE = 1e-10


def numpy_walk(
    gram: Float[np.ndarray, "n n"],
    x: Float[np.ndarray, "n"],
    uniforms: Float[np.ndarray, "n"],
    ridge: float = 1e-4,
    exact: bool = True,
) -> Bool[np.ndarray, "n"]:
    """Round fractional x in [-1, 1] to +-1; True where x became +1. One head, float64.

    The inverse of the alive part of G + ridge * mean diagonal is kept whole: 2 n^2 flops for each token frozen, all in
    products that read the matrix from memory.
    """
    x, result = x.astype(float), np.sign(x)
    token = np.flatnonzero(np.abs(x) < 1 - _FREEZE)  # of each row that is left
    if len(token) == 0:
        return result > 0
    x = x[token]
    part = gram[np.ix_(token, token)]
    inverse = np.linalg.inv(part + ridge * np.diag(part).mean() * np.eye(len(token)))
    for uniform in uniforms:
        if len(token) <= int(exact):  # with the sum fixed a last token has nowhere to go
            break
        u = _direction(inverse, exact)
        up, down = _reach(x, u), _reach(x, -u)
        x = x + (up if uniform * (up + down) < down else -down) * u
        frozen = np.abs(x) >= 1 - _FREEZE
        result[token[frozen]] = np.sign(x[frozen])
        for index in np.flatnonzero(frozen)[::-1]:
            inverse = _without(inverse, index)
        token, x = token[~frozen], x[~frozen]
    result[token] = np.sign(x)
    return result > 0


def _direction(inverse: np.ndarray, exact: bool) -> np.ndarray:
    """u with u = 1 at the first token and least u^T G u; the sum of u is 0 if `exact`."""
    column = inverse[0]
    if exact:
        row_sums = inverse.sum(axis=1)
        column = column - row_sums[0] / row_sums.sum() * row_sums
    return column / column[0]


def _reach(x: np.ndarray, u: np.ndarray) -> float:
    moving = u != 0
    return float(((np.sign(u[moving]) - x[moving]) / u[moving]).min().clip(0))


def _without(inverse: np.ndarray, index: int) -> np.ndarray:
    """The inverse of the matrix with row and column `index` taken out."""
    column = np.delete(inverse[index], index)
    rest = np.delete(np.delete(inverse, index, axis=0), index, axis=1)
    return rest - np.outer(column, column / inverse[index, index])
