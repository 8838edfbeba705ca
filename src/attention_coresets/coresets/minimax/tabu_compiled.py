"""Makes the moves of tabu.py, compiled: two passes over the tokens a move in place of some ten, to the same subsets.

`no_type_check` keeps jaxtyping's test hook from wrapping what numba must compile.
"""

from typing import no_type_check

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
@no_type_check
def search(gram, diagonal, kept, slope, energy, stay, least_gain):
    """Does all moves of one search; returns the least energy and leaves its subset in `kept`.

    gram [n, n]; diagonal, kept and slope [n], the last of which it overwrites; stay [2, moves].
    """
    n, moves = kept.size, stay.shape[1]
    until, now, least = np.zeros(n, np.int64), kept.copy(), energy
    for move in range(moves):
        i, leaving = 0, np.inf
        for k in range(n):
            value = diagonal[k] - 2 * slope[k]
            if now[k] and until[k] <= move and value < leaving:
                i, leaving = k, value
        j, coming = 0, np.inf
        for k in range(n):
            slope[k] -= gram[i, k]
            value = diagonal[k] + 2 * slope[k]
            if not now[k] and until[k] <= move and value < coming:
                j, coming = k, value
        for k in range(n):
            slope[k] += gram[j, k]
        now[i], now[j] = False, True
        until[i], until[j] = move + 1 + stay[1, move], move + 1 + stay[0, move]
        energy = energy + (leaving + coming)
        if energy < least - least_gain * abs(least):
            kept[:], least = now, energy
    return least
