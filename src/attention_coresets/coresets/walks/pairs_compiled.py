"""Walks pair by pair, compiled: what pairs.py does on the CPU where numba is installed, heads side by side in threads.

A pair needs <feature of i less feature of j, discrepancy so far>, which is two rows of the Gram matrix against the
moves so far. These are read in order, four pairs at a time, and from x = 0 in the lower triangle alone. No matrix of
pair differences is made.

Arithmetic and random numbers are those of the torch loop up to rounding; tests hold the two to the same signs.
`no_type_check` keeps jaxtyping's test hook from wrapping what numba must compile.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import no_type_check

import numpy as np
import torch
from numba import njit
from torch import Tensor

KINDS = ("coin", "greedy", "self_balancing", "kernel_halving")
COIN, GREEDY, SELF_BALANCING, KERNEL_HALVING = range(4)
_TIE, _ROUNDING = 1e-9, 1e-14
_PANEL, _TILE = 256, 1024  # rows and columns of the Gram matrix formed at a time: they stay in cache
_TASKS = 4  # a thread: heads may need different times
_BLOCK = 64  # rows of it formed at a time from x = 0
_GROUP = 4  # pairs whose rows of the Gram matrix are read in one pass


def walk_pairs(gram: Tensor | None, x: Tensor, uniforms: Tensor, kind: str, parameter: float, freeze: float) -> Tensor:
    """Does `pair_signs` of pairs.py for the rule `kind`: kept ``[H, n]``, one head at once for each torch thread."""
    # NumPy from here on: torch's own threads wait in a busy loop after each of its operations, on the cores of ours
    heads, signs, numbers = x.shape[0], x.numpy().copy(), uniforms.contiguous().numpy()
    matrices = np.empty((heads, 0, 0)) if gram is None else gram.contiguous().numpy()
    threads = min(heads, torch.get_num_threads())
    # more tasks than threads, so that a slow head does not leave the others waiting
    cuts = [heads * task // (_TASKS * threads) for task in range(_TASKS * threads + 1)]

    def some(first: int, last: int) -> None:
        part = slice(first, last)
        _heads(matrices[part], signs[part], numbers[part], KINDS.index(kind), parameter, freeze)

    if threads < 2:
        some(0, heads)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(some, cuts[:-1], cuts[1:]))  # a list: an exception in a thread is raised here
    return torch.from_numpy(signs > 0)


def halve(
    gram: Tensor | tuple, tokens: Tensor | None, start: Tensor, uniforms: Tensor, kind: str, parameter: float
) -> Tensor:
    """Does walk_pairs from x = 0, whose shape `start` ``[H, n]`` has, n even, block by block of the lower triangle.

    `gram` is the features of the Gram matrices (kernel/law.py), or these themselves, of which `tokens` ``[H, n]`` says
    the rows and columns. No state may be needed before the first pair, as that of self_balancing is.
    """
    (heads, n), state = start.shape, np.zeros(len(start))
    x, moved = np.zeros((heads, n)), np.zeros((heads, n))
    rest = x, moved, uniforms.contiguous().numpy(), KINDS.index(kind), parameter, state
    if not isinstance(gram, tuple):
        assert tokens is not None, "a whole matrix is walked by walk_pairs"
        _halve_chosen(gram.numpy(), tokens.numpy(), *rest)
        return torch.from_numpy(x > 0)
    left, right, values = _factors(gram)
    room = left.new_empty(2, heads * min(_BLOCK, n) * n)  # of every block: fresh pages each time would cost as much
    for first in range(0, n, _BLOCK):
        last = min(first + _BLOCK, n)
        rows, columns, shape = slice(first, last), slice(0, last), (heads, last - first, last)
        block, other = (part[: heads * (last - first) * last].view(shape) for part in room)
        torch.bmm(left[:, rows], right[:, columns].mT, out=block).exp_()
        block.mul_(torch.bmm(values[:, rows], values[:, columns].mT, out=other))
        _settle_blocks(block.numpy(), first, *rest)
    return torch.from_numpy(x > 0)


def _factors(features: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Brings shifts and constants into the products: two passes over a panel, where kernel_panel makes six."""
    x, v, shift = features
    one, shift = torch.ones_like(shift).unsqueeze(-1), shift.unsqueeze(-1)
    left, right = torch.cat([x, shift, one], dim=-1), torch.cat([x, one, shift], dim=-1)
    return left, right, torch.cat([v, one], dim=-1) * 0.5**0.5


def walk_panels(features: tuple, x: Tensor, uniforms: Tensor, kind: str, parameter: float, freeze: float) -> Tensor:
    """Does walk_pairs with the Gram matrix of `features` (kernel/law.py) formed as it is needed, head after head."""
    heads = zip(zip(*features, strict=True), x, uniforms, strict=True)
    return torch.stack([_Panels(f).walk(start, u, KINDS.index(kind), parameter, freeze) for f, start, u in heads])


class _Panels:
    """One head's Gram matrix in panels: matrix products bring in the moves before a panel, `settle` does its pairs."""

    def __init__(self, features: tuple[Tensor, ...]) -> None:
        self.left, self.right, self.values = _factors(features)

    def walk(self, x: Tensor, uniforms: Tensor, kind: int, parameter: float, freeze: float) -> Tensor:
        """Does walk_pairs for this head."""
        x, moved, used, state = x.clone(), torch.zeros_like(x), 0, -1.0
        while len(alive := (x.abs() < 1 - freeze).nonzero().squeeze(-1)) > 1:
            panels = alive[: len(alive) // 2 * 2].split(_PANEL)
            # the longest pair of the first round, all its panels together: it must be known before any pair moves
            if state < 0:
                state = max(start(self._gram(t, t).numpy(), x[t].numpy(), np.arange(len(t)), kind) for t in panels)
            # in the first round nothing beyond the last panel has moved: the lower triangle is enough
            reach = len(x) if used else 0
            for tokens in panels:
                here, moves = x[tokens].numpy(), np.zeros(len(tokens))
                arrays = (self._gram(tokens, tokens).numpy(), here, moves, np.arange(len(tokens)), 0)
                past = self._past(tokens, moved[:reach])
                state = settle(*arrays, past.numpy(), uniforms[used:].numpy(), kind, parameter, state, 0)
                x[tokens] = torch.from_numpy(here)
                moved[tokens] += torch.from_numpy(moves)
                used += len(tokens) // 2
                reach = max(reach, int(tokens[-1]) + 1)
        return x > 0

    def _past(self, tokens: Tensor, moved: Tensor) -> Tensor:
        inner = moved.new_zeros(len(tokens))
        for first in range(0, len(moved), _TILE):
            part = slice(first, min(first + _TILE, len(moved)))
            inner += self._gram(tokens, part) @ moved[part]
        return inner[0::2] - inner[1::2]

    def _gram(self, rows: Tensor, columns: Tensor | slice) -> Tensor:
        panel = (self.left[rows] @ self.right[columns].mT).exp_()
        return panel.mul_(self.values[rows] @ self.values[columns].mT)


@njit(cache=True, nogil=True)
@no_type_check
def _settle_blocks(gram, first, x, moved, uniforms, kind, parameter, state):
    """Settles the pairs of the rows of `gram`, tokens from `first` on, head after head; all arrays change in place."""
    tokens, past = np.arange(first, first + gram.shape[1]), np.zeros(gram.shape[1])
    for head in range(gram.shape[0]):
        numbers = uniforms[head, first // 2 :]
        state[head] = settle(
            gram[head], x[head], moved[head], tokens, first, past, numbers, kind, parameter, state[head], first
        )


@njit(cache=True, nogil=True)
@no_type_check
def _halve_chosen(gram, chosen, x, moved, uniforms, kind, parameter, state):
    """Settles all pairs of the tokens `chosen` of each head, whose part of `gram` is copied block by block."""
    heads, n = x.shape
    block = np.empty((1, _BLOCK, n), gram.dtype)
    for head in range(heads):
        part = slice(head, head + 1)
        for first in range(0, n, _BLOCK):
            last = min(first + _BLOCK, n)
            for r in range(first, last):
                row = gram[head, chosen[head, r]]
                for c in range(last):
                    block[0, r - first, c] = row[chosen[head, c]]
            rows = block[:, : last - first]
            _settle_blocks(rows, first, x[part], moved[part], uniforms[part], kind, parameter, state[part])


@njit(cache=True, nogil=True)
@no_type_check
def _heads(gram, x, uniforms, kind, parameter, freeze):
    """Walks head after head; x becomes +-1 in place."""
    for head in range(x.shape[0]):
        _walk(gram[head], x[head], uniforms[head], kind, parameter, freeze)


@njit(cache=True, nogil=True)
@no_type_check
def _walk(gram, x, uniforms, kind, parameter, freeze):
    moved, past, used, state = np.zeros_like(x), np.zeros(x.size), 0, -1.0
    while True:
        alive = np.flatnonzero(np.abs(x) < 1 - freeze)
        if alive.size < 2:
            break
        if state < 0:
            state = start(gram, x, alive, kind)
        reach = x.size if used else 0
        state = settle(gram, x, moved, alive, reach, past, uniforms[used:], kind, parameter, state, 0)
        used += alive.size // 2
    for i in range(x.size):
        x[i] = 1.0 if x[i] > 0 else -1.0


@njit(cache=True, nogil=True)
@no_type_check
def settle(gram, x, moved, tokens, reach, past, uniforms, kind, parameter, state, above):
    """Settles consecutive pairs of `tokens` in order, changing x and moved; returns the rule's new state.

    `gram` lacks the rows of the first `above` tokens. `moved` is 0 from `reach` on. past[t] is the inner product of
    pair t with moves that `moved` does not hold.
    """
    inner, steps, pairs = np.zeros(_GROUP), np.zeros(_GROUP), tokens.size // 2
    for first in range(0, pairs, _GROUP):
        last = min(first + _GROUP, pairs)
        if kind != COIN and last - first == _GROUP:
            # the four products leave out what the group itself moves: that is added pair by pair below
            _inner_of_group(gram, tokens[2 * first :] - above, moved[:reach], inner)
        elif kind != COIN:
            for t in range(first, last):
                inner[t - first] = _inner(gram[tokens[2 * t] - above], gram[tokens[2 * t + 1] - above], moved[:reach])
        for t in range(first, last):
            i, j = tokens[2 * t], tokens[2 * t + 1]
            up, down = min(1 - x[i], 1 + x[j]), min(1 + x[i], 1 - x[j])
            chance = fair = down / (up + down)
            if kind != COIN:
                half = (up + down) / 2
                one, other = gram[i - above], gram[j - above]
                norm2 = half * half * (one[i] - 2 * one[j] + other[j])
                product = past[t] + inner[t - first]
                for s in range(first, t):  # what the group has moved already
                    p, q = tokens[2 * s], tokens[2 * s + 1]
                    product += steps[s - first] * ((one[p] - other[p]) - (one[q] - other[q]))
                chance, state = _chance(kind, parameter, state, half * product, norm2, fair)
            step = up if uniforms[t] < chance else -down
            steps[t - first] = step
            x[i] += step
            x[j] -= step
        for t in range(first, last):
            i, j = tokens[2 * t], tokens[2 * t + 1]
            moved[i] += steps[t - first]
            moved[j] -= steps[t - first]
            reach = max(reach, j + 1)
    return state


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
@no_type_check
def _inner(first, second, moved):
    total = 0.0
    for k in range(moved.size):
        total += (first[k] - second[k]) * moved[k]
    return total


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
@no_type_check
def _inner_of_group(gram, tokens, moved, inner):
    """Computes `_inner` of four pairs in one pass: their rows come from memory side by side."""
    a1, b1, c1, d1 = gram[tokens[0]], gram[tokens[2]], gram[tokens[4]], gram[tokens[6]]
    a2, b2, c2, d2 = gram[tokens[1]], gram[tokens[3]], gram[tokens[5]], gram[tokens[7]]
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    for k in range(moved.size):
        a += (a1[k] - a2[k]) * moved[k]
        b += (b1[k] - b2[k]) * moved[k]
        c += (c1[k] - c2[k]) * moved[k]
        d += (d1[k] - d2[k]) * moved[k]
    inner[0], inner[1], inner[2], inner[3] = a, b, c, d


@njit(cache=True, nogil=True)
@no_type_check
def start(gram, x, tokens, kind):
    """Returns the rule's state before its first round: the longest pair for self_balancing, 0 for the others."""
    longest = 1e-300 if kind == SELF_BALANCING else 0.0
    for t in range(tokens.size // 2 if kind == SELF_BALANCING else 0):
        i, j = tokens[2 * t], tokens[2 * t + 1]
        half = (min(1 - x[i], 1 + x[j]) + min(1 + x[i], 1 - x[j])) / 2
        longest = max(longest, half * half * (gram[i, i] - 2 * gram[i, j] + gram[j, j]))
    return longest


@njit(cache=True, nogil=True)
@no_type_check
def _chance(kind, parameter, state, alpha, norm2, fair):
    """Returns the probability that i goes up, and the rule's new state: the `chance` of its class, for one head."""
    if kind == GREEDY:
        gain = alpha + (1 - 2 * fair) * norm2
        if abs(gain) <= _TIE * norm2 + _ROUNDING:
            return fair, state
        return (1.0 if gain < 0 else 0.0), state
    if kind == SELF_BALANCING:
        return min(max(fair - alpha / (2 * parameter * state), 0.0), 1.0), state
    a = max(np.sqrt(state * norm2 * parameter), norm2)
    inverse = 1 / max(a, 1e-300) if a > 0 else 0.0
    growth = max(1 + (norm2 * inverse - 2) * state * inverse, 0.0)
    return min(max(fair - alpha * inverse / 2, 0.0), 1.0), state + norm2 * growth
