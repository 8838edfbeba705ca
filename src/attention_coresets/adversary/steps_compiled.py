"""Compiles what a climb does between its matrix products: small operations that cost more to call than to do.

The arithmetic is that of the torch lines of `steps.py` and `gradient.py`, one row (a climb) at a time, in float32 or
float64. Tests hold the two together. `no_type_check` keeps jaxtyping's test hook from wrapping what numba must compile.
"""

from typing import no_type_check

import numpy as np
from numba import njit

_SUMS = {"reassoc", "contract"}  # sums in any order, as torch takes them; NaN stays NaN


@njit(cache=True, nogil=True, fastmath=_SUMS)
@no_type_check
def contrast(ours, theirs, error, our_rows, their_rows):
    """From sums of (w v, w) ``[rows, dv + 1]`` computes |D| ``[rows]`` and (D, -<A,D>) over the sum of w.

    Their rows get a minus sign.
    """
    dv, unit, zero = ours.shape[1] - 1, ours.dtype.type(1), ours.dtype.type(0)
    for r in range(len(error)):
        our_share, their_share = unit / ours[r, dv], unit / theirs[r, dv]
        square, our_offset, their_offset = zero, zero, zero
        for j in range(dv):
            one, other = ours[r, j] * our_share, theirs[r, j] * their_share
            gap = one - other
            square += gap * gap
            our_offset += gap * one
            their_offset += gap * other
            our_rows[r, j], their_rows[r, j] = gap * our_share, -gap * their_share
        error[r] = np.sqrt(square)
        our_rows[r, dv], their_rows[r, dv] = -our_offset * our_share, their_offset * their_share


@njit(cache=True, nogil=True, fastmath=_SUMS)
@no_type_check
def propose(query, direction, length, rho, tiny, out):
    """Writes the next trials into `out`, as `trial`."""
    for r in range(len(query)):
        scale = length[r] / max(_norm(direction[r]), tiny)
        for j in range(query.shape[1]):
            out[r, j] = query[r, j] + scale * direction[r, j]
        inside = rho / max(_norm(out[r]), rho)
        for j in range(query.shape[1]):
            out[r, j] *= inside


@njit(cache=True, nogil=True, fastmath=_SUMS)
@no_type_check
def judge(query, error, gradient, direction, length, trial, found, slope, rho, tiny, most_turn, on_sphere):
    """Takes the trials that gained, in place, as `judged`; error, length, found ``[rows]``, others ``[rows, d]``."""
    for r in range(len(query)):
        if found[r] > error[r]:
            _keep_along_ball(trial[r], slope[r], rho, tiny, on_sphere)
            turn = _turn(slope[r], gradient[r])
            turn = min(max(turn / max(_dot(gradient[r], gradient[r]), tiny), query.dtype.type(0)), most_turn)
            for j in range(query.shape[1]):
                direction[r, j] = slope[r, j] + turn * direction[r, j]
                query[r, j], gradient[r, j] = trial[r, j], slope[r, j]
            error[r], length[r] = found[r], min(length[r] * 1.6, rho * 4)
        else:
            direction[r] = gradient[r]
            length[r] *= 0.4


@njit(cache=True, nogil=True, fastmath=_SUMS)
@no_type_check
def _keep_along_ball(query, gradient, rho, tiny, on_sphere):
    """Takes the outward part off the gradient in place, as `_along_ball`."""
    square, outward = _dot(query, query), _dot(query, gradient)
    if square >= rho * rho * (1 - on_sphere) and outward > 0:
        share = outward / max(square, tiny)
        for j in range(query.size):
            gradient[j] -= share * query[j]


@njit(cache=True, nogil=True, fastmath=_SUMS)
@no_type_check
def _turn(gradient, before):
    """Returns <gradient, gradient - before>, without a difference of two large sums."""
    total = gradient[0] * (gradient[0] - before[0])
    for j in range(1, gradient.size):
        total += gradient[j] * (gradient[j] - before[j])
    return total


@njit(cache=True, nogil=True, fastmath=_SUMS)
@no_type_check
def _dot(x, y):
    total = x[0] * y[0]
    for j in range(1, x.size):
        total += x[j] * y[j]
    return total


@njit(cache=True, nogil=True, fastmath=_SUMS)
@no_type_check
def _norm(x):
    return np.sqrt(_dot(x, x))
