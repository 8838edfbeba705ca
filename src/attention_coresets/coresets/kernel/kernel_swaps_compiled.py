"""Does the pass of `kernel_swaps.py`, compiled: the same arithmetic in the same order, index for index.

`no_type_check` keeps jaxtyping's test hook from wrapping what numba must compile.
"""

from typing import no_type_check

import numpy as np
from numba import njit


@njit(cache=True)
@no_type_check
def swap(gram, diagonal, inner, kept, target, tie, tokens):
    """Does one pass over `tokens` of one head; gram [n, n], the others [n]. `inner` and `kept` change in place."""
    n = kept.size
    cost = np.empty(n)
    for j in tokens:
        kept[j] = False
        least = np.inf
        for i in range(n):
            inner[i] -= gram[j, i]
            cost[i] = np.inf if kept[i] else diagonal[i] - 2 * (target[i] - inner[i])
            least = min(least, cost[i])
        best = j
        if cost[j] > least + tie:
            best = 0
            while cost[best] > least + tie:
                best += 1
        kept[best] = True
        for i in range(n):
            inner[i] += gram[best, i]
