"""Takes the walk's steps between two matrix products, compiled: what `walk_blocked.py` does on the CPU.

Order of steps, choices and random numbers are those of the torch loop, for one head; tests hold the two to the same
path. The inverse lives in a lower triangle, and what is above its diagonal has no meaning. Frozen columns are held at
exactly 0 in x, row_sums and column, so that no pass asks which tokens are alive. `no_type_check` keeps jaxtyping's test
hook from wrapping what numba must compile.
"""

from typing import no_type_check

import numpy as np
from numba import njit

# what lets the compiler use vector instructions in sums and minima; infinities keep their meaning
_FAST = {"contract", "nsz", "nnan", "reassoc"}


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def steps(inverse, pending, x, mask, row_sums, column, place, signs, uniforms, pivot, done, left, exact, floor, freeze):
    """Walks until `pending` is full or fewer than `floor` columns are alive: (pending rows, pivot, steps, alive).

    inverse [w, w] and pending [block, w]. x, mask (1 while alive), row_sums, column, place (pivots go by it) and signs
    (+-1 once frozen) are [w]. All but inverse, place and uniforms are changed in place. `done` uniforms are used up
    already. `pivot` is -1 where `column` has to be read. A call goes on where a full `pending` stopped the one before.
    """
    used = 0
    while True:
        for i in range(x.size):
            if abs(x[i]) >= 1 - freeze:
                # no room: the caller applies the pending rows, and the next call finds this token again
                if used == pending.shape[0]:
                    return used, pivot, done, left
                signs[i] = 1.0 if x[i] > 0 else -1.0
                x[i], mask[i] = 0.0, 0.0
                left -= 1
                _drop(inverse, pending, used, mask, row_sums, column, i, pivot)
                used += 1
                if i == pivot:
                    pivot = -1
        if left == 0 or left < floor or used == pending.shape[0] or done == uniforms.size:
            return used, pivot, done, left
        if pivot < 0:
            pivot = _first(place, mask)
            _column(inverse, pending, used, pivot, column)
            column *= mask
        if exact and left == 1:  # the sum is fixed: the last token has nowhere to go and is at an end, up to rounding
            x[pivot] = 1.0 if x[pivot] > 0 else -1.0
        else:
            # u = (column - share row_sums) scale has u_pivot = 1 and, if exact, sum 0; it is never stored
            share = row_sums[pivot] / _sum(row_sums) if exact else 0.0
            scale = 1 / (column[pivot] - share * row_sums[pivot])
            up, down = _reach(x, row_sums, column, share, scale)
            delta = up if uniforms[done] * (up + down) < down else -down
            _move(x, row_sums, column, share, delta * scale)
        done += 1


@njit(cache=True, nogil=True)
@no_type_check
def compact(flat, stride, keep, new_stride):
    """Moves rows and columns `keep` (ascending) of the lower triangle to the front of `flat`, with a smaller stride."""
    for i in range(keep.size):
        old, new = keep[i] * stride, i * new_stride
        for j in range(i + 1):
            flat[new + j] = flat[old + keep[j]]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
@no_type_check
def add_rows(matrix, sums):
    """Adds the row sums of a symmetric matrix, read in its lower triangle, to `sums`."""
    for i in range(sums.size):
        total = matrix[i, i]
        for j in range(i):
            total += matrix[i, j]
            sums[j] += matrix[i, j]
        sums[i] += total


@njit(nogil=True, error_model="numpy", fastmath=_FAST)
@no_type_check
def _sum(row_sums):
    total = 0.0
    for i in range(row_sums.size):
        total += row_sums[i]
    return total


@njit(nogil=True)
@no_type_check
def _first(place, mask):
    """Finds the alive column of the lowest place."""
    best, at = np.inf, -1
    for i in range(place.size):
        if mask[i] > 0 and place[i] < best:
            best, at = place[i], i
    return at


@njit(nogil=True, error_model="numpy", fastmath=_FAST)
@no_type_check
def _reach(x, row_sums, column, share, scale):
    """Finds how far x can go along u = (column - share row_sums) scale, and back, before it leaves [-1, 1]^w."""
    # frozen columns have u = 0: 1 / 0 is infinite and sets no limit, which the error model of numpy allows
    up, down = np.inf, np.inf
    for i in range(x.size):
        u = (column[i] - share * row_sums[i]) * scale
        size, shift = 1 / abs(u), (x[i] if u > 0 else -x[i])
        up = min(up, (1 - shift) * size)
        down = min(down, (1 + shift) * size)
    return max(up, 0.0), max(down, 0.0)


@njit(nogil=True, error_model="numpy", fastmath=_FAST)
@no_type_check
def _move(x, row_sums, column, share, step):
    for i in range(x.size):
        x[i] += (column[i] - share * row_sums[i]) * step


@njit(nogil=True, error_model="numpy", fastmath=_FAST)
@no_type_check
def _drop(inverse, pending, used, mask, row_sums, column, index, pivot):
    """Takes token `index` out of the inverse: adds a pending row, and brings row sums and pivot column up to date."""
    w = pending[used]
    # the pivot's column is at hand already
    if index == pivot:
        w[:] = column
    else:
        _column(inverse, pending, used, index, w)
    root = 1 / np.sqrt(max(w[index], 1e-300))
    by_sum = row_sums[index] * root
    by_pivot = w[pivot] * root if pivot >= 0 else 0.0
    for i in range(w.size):
        # the mask holds frozen columns at exactly 0 in all that follows
        v = w[i] * root * mask[i]
        w[i] = v
        row_sums[i] -= v * by_sum
        column[i] -= v * by_pivot
    row_sums[index], column[index] = 0.0, 0.0


@njit(nogil=True, error_model="numpy", fastmath=_FAST)
@no_type_check
def _column(inverse, pending, used, index, out):
    """Writes column `index` of the inverse, less its pending downdates, into `out`."""
    for i in range(index + 1):
        out[i] = inverse[index, i]
    for i in range(index + 1, out.size):
        out[i] = inverse[i, index]
    # four pending rows a pass: `out` is read and written a quarter as often
    k = 0
    while k + 4 <= used:
        a, b, c, d = pending[k, index], pending[k + 1, index], pending[k + 2, index], pending[k + 3, index]
        p, q, r, s = pending[k], pending[k + 1], pending[k + 2], pending[k + 3]
        for i in range(out.size):
            out[i] -= a * p[i] + b * q[i] + c * r[i] + d * s[i]
        k += 4
    while k < used:
        a, p = pending[k, index], pending[k]
        for i in range(out.size):
            out[i] -= a * p[i]
        k += 1
