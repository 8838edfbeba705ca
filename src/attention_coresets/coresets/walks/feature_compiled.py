"""Takes the feature walk's steps between two fresh inverses, compiled, for one head: `feature_walk.py` on the CPU.

`no_type_check` keeps jaxtyping's test hook from wrapping what numba must compile.
"""

from typing import no_type_check

import numpy as np
from numba import njit

_FAST = {"contract", "nsz", "reassoc"}


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def feature_steps(rows, inverse, total, x, uniforms, done, limit, exact, freeze):
    """Takes at most `limit` steps of the walk, and returns how many uniforms are used up. x is +-1 where frozen.

    rows [w, r] are in the order in which they become pivots, all alive. inverse [r, r] is that of c I + sum of their x
    x^T but the first's, and total [r] the sum of the same rows; both are used up.
    """
    alive = np.ones(x.size, np.bool_)
    u = np.empty_like(x)
    pivot, left = 0, x.size
    for _ in range(limit):
        if exact and left == 1:  # the sum is fixed: the last token has nowhere to go and is at an end, up to rounding
            x[pivot] = 1.0 if x[pivot] > 0 else -1.0
        else:
            _direction(rows, inverse, total, alive, pivot, exact, u)
            up, down = _reach(x, u)
            x += (up if uniforms[done] * (up + down) < down else -down) * u
        done += 1
        for i in range(pivot, x.size):
            if alive[i] and abs(x[i]) >= 1 - freeze:
                x[i] = 1.0 if x[i] > 0 else -1.0
                alive[i] = False
                left -= 1
                if i != pivot:
                    _remove(rows[i], inverse, total)
        if left == 0:
            break
        if not alive[pivot]:
            pivot += np.argmax(alive[pivot:])
            _remove(rows[pivot], inverse, total)
    return done


@njit(nogil=True, error_model="numpy")
@no_type_check
def _direction(rows, inverse, total, alive, pivot, exact, u):
    """Computes u: -X M^-1 x_p off the pivot, 1 at it; if `exact`, plus the multiple of 1 - X M^-1 s for a sum of 0."""
    y, t = _times(inverse, rows[pivot]), _times(inverse, total)
    sum_u, sum_b = 1.0, 0.0
    b = np.zeros_like(u)
    for i in range(u.size):
        u[i] = 0.0
        if alive[i] and i != pivot:
            along, ones = _dots(rows[i], y, t)
            u[i], b[i] = -along, 1 - ones
            sum_u += u[i]
            sum_b += b[i]
    u[pivot] = 1.0
    if exact:
        u -= (sum_u / sum_b) * b


@njit(nogil=True, error_model="numpy")
@no_type_check
def _reach(x, u):
    """Finds how far x can go along u, and back, before it leaves [-1, 1]^w."""
    up, down = np.inf, np.inf
    for i in range(x.size):
        if u[i] != 0:
            size, shift = 1 / abs(u[i]), x[i] if u[i] > 0 else -x[i]
            up = min(up, (1 - shift) * size)
            down = min(down, (1 + shift) * size)
    return max(up, 0.0), max(down, 0.0)


@njit(nogil=True, error_model="numpy")
@no_type_check
def _remove(row, inverse, total):
    """Takes one row out of the matrix behind `inverse` (Sherman and Morrison) and out of `total`."""
    z = _times(inverse, row)
    scale = 1 / max(1 - _dots(row, z, z)[0], 1e-15)
    for i in range(z.size):
        target, factor = inverse[i], scale * z[i]
        for j in range(z.size):
            target[j] += factor * z[j]
    total -= row


@njit(nogil=True, error_model="numpy")
@no_type_check
def _times(matrix, vector):
    out = np.empty_like(vector)
    for i in range(vector.size):
        out[i] = _dots(matrix[i], vector, vector)[0]
    return out


@njit(nogil=True, error_model="numpy", fastmath=_FAST)
@no_type_check
def _dots(row, first, second):
    a, b = 0.0, 0.0
    for i in range(row.size):
        a += row[i] * first[i]
        b += row[i] * second[i]
    return a, b
