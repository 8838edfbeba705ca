"""The pair walk as a Triton kernel: `pairs_compiled.py` on a GPU, all of a walk in one launch, one program a head.

A pair reads two rows of the Gram matrix against the moves so far; from x = 0 only up to the pair itself.
`no_type_check` keeps jaxtyping's test hook from wrapping what Triton must compile. A Python float in a kernel is a
float32: what must be exact comes in a tensor or is made by `tl.full`.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE, _PER_WARP = 2048, 128  # numbers read at a time by a program, and by each of its warps
_TIE, _ROUNDING = tl.constexpr(1e-9), tl.constexpr(1e-14)


def walk_pairs(gram: Tensor, x: Tensor, uniforms: Tensor, kind: str, parameter: float, freeze: float) -> Tensor:
    """Does `pair_signs` of pairs.py for a rule that reads the Gram matrix: kept ``[H, n]``, without any wait."""
    heads, n = x.shape
    rows = torch.stack([x, torch.zeros_like(x)], dim=1)  # x, and its moves since the start
    order, number = torch.empty_like(x, dtype=torch.int32), torch.full_like(x[0, :1], parameter)
    tile = min(_TILE, max(triton.next_power_of_2(n), _PER_WARP))
    shape = {"TILE": tile, "num_warps": tile // _PER_WARP}
    arrays = (gram.contiguous(), rows, order, uniforms.contiguous(), number)
    with torch.cuda.device_of(x):  # Triton launches on the current device
        _walk[(heads,)](*arrays, n, KIND=kind, FREEZE=freeze, **shape)
    return rows[:, 0] > 0


@triton.jit
@no_type_check
def _walk(gram, rows, order, uniforms, number, n, KIND: tl.constexpr, FREEZE: tl.constexpr, TILE: tl.constexpr):
    """Walks one head: gram [n, n]; rows [2, n], x and its moves, changed in place; order [n] is for its own use."""
    head = tl.program_id(0).to(tl.int64)
    gram += head * n * n
    rows += head * 2 * n
    order += head * n
    uniforms += head * n
    parameter = tl.load(number)
    used, alive = 0, _alive(rows, order, n, FREEZE, TILE)
    state = parameter * 0
    if KIND == "self_balancing":
        state = _longest(gram, rows, order, alive // 2, n, TILE)
    while alive > 1:
        for pair in range(0, alive // 2):
            i, j = tl.load(order + 2 * pair), tl.load(order + 2 * pair + 1)
            # in the first round nothing from i on has moved
            inner = _inner(gram, rows, i, j, tl.where(used == 0, i, n), n, TILE)
            state = _settle(gram, rows, i, j, inner, tl.load(uniforms + used + pair), parameter, state, n, KIND)
        used += alive // 2
        alive = _alive(rows, order, n, FREEZE, TILE)


@triton.jit
@no_type_check
def _alive(rows, order, n, FREEZE: tl.constexpr, TILE: tl.constexpr):
    """Lists the tokens that are not at an end in `order`, and returns how many they are."""
    limit, count = 1 - tl.full((), FREEZE, tl.float64), 0
    for start in range(0, n, TILE):
        at = start + tl.arange(0, TILE)
        alive = tl.abs(tl.load(rows + at, mask=at < n, other=1.0)) < limit
        places = count + tl.cumsum(alive.to(tl.int32), axis=0) - 1
        tl.store(order + places, at, mask=alive)
        count += tl.sum(alive.to(tl.int32), axis=0)
    tl.debug_barrier()
    return count


@triton.jit
@no_type_check
def _ends(rows, i, j, mask):
    """Returns how far pairs can go up and down."""
    x, y = tl.load(rows + i, mask=mask, other=0.0), tl.load(rows + j, mask=mask, other=0.0)
    return tl.minimum(1 - x, 1 + y), tl.minimum(1 + x, 1 - y)


@triton.jit
@no_type_check
def _norm2(gram, i, j, n, mask):
    """Returns the squared length of the difference of two tokens' features."""
    i, j = i.to(tl.int64), j.to(tl.int64)
    ii = tl.load(gram + i * n + i, mask=mask, other=0.0).to(tl.float64)
    ij = tl.load(gram + i * n + j, mask=mask, other=0.0).to(tl.float64)
    return ii - 2 * ij + tl.load(gram + j * n + j, mask=mask, other=0.0).to(tl.float64)


@triton.jit
@no_type_check
def _longest(gram, rows, order, pairs, n, TILE: tl.constexpr):
    """Returns |h f|^2 of the longest pair."""
    found = tl.zeros([TILE], tl.float64)
    for start in range(0, pairs, TILE):
        pair = start + tl.arange(0, TILE)
        inside = pair < pairs
        i = tl.load(order + 2 * pair, mask=inside, other=0)
        j = tl.load(order + 2 * pair + 1, mask=inside, other=0)
        up, down = _ends(rows, i, j, inside)
        half = (up + down) / 2
        found = tl.maximum(found, half * half * _norm2(gram, i, j, n, inside))
    return tl.maximum(tl.max(found, axis=0), 1e-300)


@triton.jit
@no_type_check
def _inner(gram, rows, i, j, reach, n, TILE: tl.constexpr):
    """Returns <feature of i less feature of j, moves before `reach`>."""
    total = tl.zeros([TILE], tl.float64)
    first, second, moved = gram + i.to(tl.int64) * n, gram + j.to(tl.int64) * n, rows + n
    for start in range(0, reach, TILE):
        at = start + tl.arange(0, TILE)
        there = at < reach
        a = tl.load(first + at, mask=there, other=0.0).to(tl.float64)
        b = tl.load(second + at, mask=there, other=0.0).to(tl.float64)
        total += (a - b) * tl.load(moved + at, mask=there, other=0.0)
    return tl.sum(total, axis=0)


@triton.jit
@no_type_check
def _settle(gram, rows, i, j, inner, uniform, parameter, state, n, KIND: tl.constexpr):
    """Moves one pair to one of its ends, and returns the rule's new state: as `_chance` of pairs_compiled.py."""
    up, down = _ends(rows, i, j, True)
    half, fair = (up + down) / 2, down / (up + down)
    norm2, alpha = half * half * _norm2(gram, i, j, n, True), half * inner
    if KIND == "greedy":
        gain = alpha + (1 - 2 * fair) * norm2
        tie = tl.full((), _TIE, tl.float64) * norm2 + tl.full((), _ROUNDING, tl.float64)
        chance = tl.where(tl.abs(gain) <= tie, fair, tl.where(gain < 0, 1.0, 0.0))
    elif KIND == "self_balancing":
        chance = fair - alpha / (2 * parameter * state)
    else:
        tl.static_assert(KIND == "kernel_halving")
        a = tl.maximum(tl.sqrt(state * norm2 * parameter), norm2)
        inverse = tl.where(a > 0, 1 / tl.maximum(a, 1e-300), 0.0)
        growth = 1 + (norm2 * inverse - 2) * state * inverse
        chance = fair - alpha * inverse / 2
        state += norm2 * tl.maximum(growth, 0.0)
    step = tl.where(uniform < chance, up, -down)
    moved = rows + n
    x, y, by, back = tl.load(rows + i), tl.load(rows + j), tl.load(moved + i), tl.load(moved + j)
    tl.debug_barrier()  # every thread has read what is written now
    tl.store(rows + i, x + step)
    tl.store(rows + j, y - step)
    tl.store(moved + i, by + step)
    tl.store(moved + j, back - step)
    tl.debug_barrier()
    return state
