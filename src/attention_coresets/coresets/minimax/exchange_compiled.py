"""Makes the best exchange of `exchange.py` in one head, compiled: a few passes over the table in place of dozens.

`no_type_check` keeps jaxtyping's test hook from wrapping what numba must compile.
"""

from typing import no_type_check

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
@no_type_check
def swap(gram, diagonal, tokens, used, inside, P, M, w, r, s, least_room, least, most):
    """Does what `Supports.swap` does in one head, whose arrays it changes; returns whether an exchange gains `least`.

    Looks at no more than `most` exchanges, best first.
    """
    i, j = best_pair(P, M, w, r, diagonal - s, used, inside, least_room, least, most)
    if i < 0:
        return False
    if used[i]:
        _remove(P, M, w, r, s, i)
        inside[tokens[i]] = False
    _insert(gram, tokens, P, M, w, r, s, diagonal[j] - s[j], i, j)
    tokens[i], used[i], inside[j] = j, True, True
    return True


@njit(cache=True, nogil=True)
@no_type_check
def _remove(P, M, w, r, s, i):
    spread, step = P[i, i], w[i] / P[i, i]
    p, row = P[:, i].copy(), M[i].copy()
    share = p / spread
    for k in range(p.size):
        _add(M[k], -share[k], row)
        _add(P[k], -p[k], share)
    _add(w, -step, p)
    _add(r, step, row)
    _add(s, -1.0, row * row / spread)
    P[i], P[:, i], M[i], w[i] = 0.0, 0.0, 0.0, 0.0


@njit(cache=True, nogil=True)
@no_type_check
def _insert(gram, tokens, P, M, w, r, s, room, i, j):
    u, row, step = M[:, j].copy(), -gram[j], r[j] / room
    for k in range(u.size):
        _add(row, u[k], gram[tokens[k]])
    # with -1 at its own slot one rank-one update also fills the new row and column
    u[i] = -1.0
    share = u / room
    for k in range(u.size):
        _add(M[k], share[k], row)
        _add(P[k], u[k], share)
    _add(w, -step, u)
    _add(r, step, row)
    _add(s, 1.0, row * row / room)


@njit(cache=True, nogil=True)
@no_type_check
def _add(x, scale, y):
    for k in range(x.size):
        x[k] += scale * y[k]


@njit(cache=True, nogil=True)
@no_type_check
def best_pair(P, M, w, r, room, used, inside, least_room, gain, most):
    """Finds slot and token of the best exchange that keeps every weight positive; -1, -1 where none gains `gain`.

    P [m, m], M [m, n], w and used [m], r and inside [n] are those of `_Support`; room [n] is G_jj - s_j. Looks at no
    more than `most` exchanges, best first, and of equal ones at the first.
    """
    m, n = M.shape
    spread = np.maximum(np.diag(P), 1e-300)
    net, best, token = np.empty(n), np.empty(m), np.empty(m, np.int64)
    for i in range(m):
        _net(M[i], w[i], spread[i], used[i], r, room, inside, least_room, net)
        token[i] = _largest(net)
        best[i] = net[token[i]]
    for _ in range(most):
        i = _largest(best)
        if not best[i] > gain:
            return -1, -1
        if _stays_positive(P, M, w, r, room, spread, used, i, token[i]):
            return i, token[i]
        _net(M[i], w[i], spread[i], used[i], r, room, inside, least_room, net)
        value, after = best[i], token[i]
        for j in range(n):  # what has been looked at
            if net[j] > value or (net[j] == value and j <= after):
                net[j] = -np.inf
        token[i] = _largest(net)
        best[i] = net[token[i]]
    return -1, -1


@njit(cache=True, nogil=True)
@no_type_check
def _net(row, weight, spread, used, r, room, inside, least_room, net):
    """Computes what tau gains when the slot of this row gives way to each token; -inf where it cannot."""
    ratio, loss = weight / spread, weight * weight / spread if used else 0.0
    for j in range(row.size):
        residual = r[j] + ratio * row[j]
        left = room[j] + row[j] * row[j] / spread
        fine = (residual > 0) & (left > least_room) & ~inside[j]
        net[j] = residual * (residual / left) - loss if fine else -np.inf


@njit(cache=True, nogil=True)
@no_type_check
def _largest(x):
    """Finds where the largest entry is, the first of equal ones."""
    largest = -np.inf
    for k in range(x.size):
        largest = max(largest, x[k])
    for k in range(x.size):
        if x[k] == largest:
            return k
    return 0


@njit(cache=True, nogil=True)
@no_type_check
def _stays_positive(P, M, w, r, room, spread, used, i, j):
    ratio = w[i] / spread[i]
    step = (r[j] + ratio * M[i, j]) / (room[j] + M[i, j] * M[i, j] / spread[i])
    drop = (w[i] - step * M[i, j]) / spread[i]
    fine = True
    for k in range(w.size):
        if used[k] and k != i:
            fine &= w[k] - P[i, k] * drop - step * M[k, j] > 0
    return fine
