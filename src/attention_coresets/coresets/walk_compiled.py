"""The walk's steps between two matrix products, compiled: what `walk.py` does on the CPU where numba is installed.

Same arithmetic, order of steps and random numbers as the torch loop, for one head; tests hold the two to the same path.
`no_type_check` keeps jaxtyping's test hook from wrapping what numba must compile.
"""

from typing import no_type_check

import numpy as np
from numba import njit


@njit(cache=True)
@no_type_check
def steps(inverse, pending, x, alive, row_sums, column, uniforms, pivot, done, left, exact, floor, freeze):
    """Walk until `pending` is full or fewer than `floor` columns are alive: (downdates pending, pivot, steps, alive).

    inverse [w, w], pending [block, w], x (+-1 where frozen), alive, row_sums, column [w] are changed in place; `done`
    uniforms are used up already. A call goes on where a full `pending` stopped the one before.
    """
    used = 0
    u = np.zeros_like(x)
    while True:
        for i in range(x.size):
            if alive[i] and abs(x[i]) >= 1 - freeze:
                if used == pending.shape[0]:
                    return used, pivot, done, left
                x[i] = 1.0 if x[i] > 0 else -1.0
                alive[i] = False
                left -= 1
                _drop(inverse, pending, used, row_sums, column, i, pivot)
                used += 1
        if left == 0 or left < floor or used == pending.shape[0]:
            return used, pivot, done, left
        if not alive[pivot]:
            pivot = np.argmax(alive)
            _column(inverse, pending, used, pivot, column)
        if exact and left == 1:  # the sum is fixed: the last token has nowhere to go and is at an end, up to rounding
            x[pivot] = 1.0 if x[pivot] > 0 else -1.0
        else:
            up, down = _direction(x, alive, row_sums, column, pivot, exact, u)
            delta = up if uniforms[done] * (up + down) < down else -down
            for i in range(x.size):
                x[i] += delta * u[i]
        done += 1


@njit(cache=True)
@no_type_check
def _direction(x, alive, row_sums, column, pivot, exact, u):
    """Write the step's direction into `u` (0 where frozen); how far x can go along it, and back."""
    total = 0.0
    for i in range(x.size):
        if alive[i]:
            total += row_sums[i]
    share = row_sums[pivot] / total if exact else 0.0
    scale = 1 / (column[pivot] - share * row_sums[pivot])
    up, down = np.inf, np.inf
    for i in range(x.size):
        u[i] = (column[i] - share * row_sums[i]) * scale if alive[i] else 0.0
        if u[i] != 0:
            inverse = 1 / u[i]
            up = min(up, abs(inverse) - x[i] * inverse)
            down = min(down, abs(inverse) + x[i] * inverse)
    return max(up, 0.0), max(down, 0.0)


@njit(cache=True)
@no_type_check
def _drop(inverse, pending, used, row_sums, column, index, pivot):
    """Take token `index` out of the inverse: one more pending row, and row sums and pivot column brought up to date."""
    w = pending[used]
    _column(inverse, pending, used, index, w)
    w *= 1 / np.sqrt(max(w[index], 1e-300))
    row_sums -= w * (row_sums[index] / w[index])
    column -= w * w[pivot]


@njit(cache=True)
@no_type_check
def _column(inverse, pending, used, index, out):
    """Column `index` of the inverse less its pending downdates, into `out`."""
    out[:] = inverse[index]
    for k in range(used):
        factor = pending[k, index]
        if factor != 0:
            out -= factor * pending[k]
