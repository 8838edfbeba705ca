"""Searches sizes for the smallest one of which a value is at most epsilon."""

import math
from collections.abc import Callable

RESOLUTION = 32  # sizes are told apart to this part of them
_FARTHEST = 4  # times the last size: the next one, while only one side is known


def smallest_size(value: Callable[[int], float], epsilon: float, first: int, below: int) -> int:
    """Returns a size under `below` of which the value is at most epsilon, or else `below`; `first` is tried first.

    Sizes grow or shrink by up to 4 times until one fails and one does not, then come closer from both sides to 3 % of
    the size. Each is a guess: where the line through both ends, log value against log size, meets epsilon, and from one
    end alone a slope of -1, that of a good coreset. Values need not be monotone; then a smaller size may do as well.

    Parameters
    ----------
    value : Callable
        Of a size from 1 to below - 1. It is called for no size twice.
    epsilon : float
    first : int
    below : int
        At least 2, and above `first`.
    """
    size, ends, moves = first, {0: math.inf, below: 0.0}, []
    low, high = 0, below
    while high - low > _step(low):
        ends[size] = value(size)
        low, high = (low, size) if ends[size] <= epsilon else (size, high)
        moves.append(size == high)
        if low and ends[high] > 0 and moves[-3:] in ([True] * 3, [False] * 3):  # lines from a far end are of no use
            guess = math.ceil(math.sqrt(low * high))
        else:
            guess = _next(size, ends[size], (low, ends[low]), (high, ends[high]), epsilon)
        size = max(min(guess, high - _step(high)), min(low + _step(low), high - 1))
    return high


def _step(size: int) -> int:
    """Returns how far from a size another one counts as another."""
    return max(1, size // RESOLUTION)


def _next(size: int, found: float, low: tuple[int, float], high: tuple[int, float], epsilon: float) -> int:
    """Returns the next size to try, from the last one and from both ends."""
    (failed, at_failed), (met, at_met) = low, high
    if at_met > 0 and at_failed < math.inf:
        slope = math.log(at_failed / at_met) / math.log(met / failed)
        return math.ceil(failed * (at_failed / epsilon) ** (1 / slope))
    guess = min(max(size * found / epsilon, size / _FARTHEST), size * _FARTHEST)
    # one end alone is known, or a value of 0 at the other: the whole cache, or a coreset that is exact
    return math.ceil(min(guess, (failed + met) / 2) if failed else guess)
