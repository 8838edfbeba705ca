"""The Gram-Schmidt walk as Triton kernels: `walk_blocked.py` on a GPU, one program a head, all heads in one launch.

A launch moves x and drops frozen tokens until `block` of every head are gone, or all. So the host knows how many are
left without asking, and nothing waits for the device before the end. After each launch a matrix product applies what is
pending, and columns long frozen are dropped.

Choices and random numbers are those of `walk_compiled.py`. Vectors lie in global memory and are read a tile at a time,
so that one program can walk a head of any size. `no_type_check` keeps jaxtyping's test hook from wrapping what Triton
must compile. A Python float in a kernel is a float32: what must be exact is made by `tl.full`.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from attention_coresets.coresets.walks.walk_loop import alive_inverse

_COMPACT = 0.8  # dead columns are dropped once fewer than this share of the columns is alive
_TILE, _PER_WARP = 2048, 128  # numbers read at a time by a program, and by each of its warps


def walk(
    gram: Tensor, x: Tensor, uniforms: Tensor, place: Tensor, ridge: float, exact: bool, block: int, freeze: float
) -> Tensor:
    """Returns which tokens are kept, ``[H, n]``; arguments as in `walk_signs`.

    ridge None: `gram` is the inverse already.
    """
    (heads, n), alive = x.shape, x.abs() < 1 - freeze
    left = alive.sum(-1)
    fewest, most = torch.stack(left.aminmax()).tolist()
    kept, uniforms = (x > 0).to(torch.int8), uniforms.contiguous()
    inverse = gram if ridge is None else alive_inverse(gram, alive, ridge, partial=fewest < n)
    sums = (inverse @ alive.to(x.dtype).unsqueeze(-1)).squeeze(-1)
    rows = torch.stack([x, torch.ones_like(x), sums, torch.zeros_like(x)], dim=1) * alive.unsqueeze(1)  # [H, 4, w]
    token, order = torch.arange(n, dtype=torch.int32, device=x.device).repeat(heads, 1), place.argsort(dim=-1).int()
    state = torch.stack([torch.zeros_like(left), torch.zeros_like(left), left], dim=-1).int()  # cursor, moves, alive
    pending = x.new_empty(heads, block, n)
    tile = min(_TILE, max(triton.next_power_of_2(n), _PER_WARP))
    shape = {"BLOCK": block, "PENDING": triton.next_power_of_2(block), "TILE": tile, "num_warps": tile // _PER_WARP}
    for width in range(most, 0, -block):  # alive in the head that has the most: each drops `block` a launch
        if width < _COMPACT * rows.shape[-1]:
            inverse, rows, token, place = _compact(inverse, rows, token, place, width)
            pending, order = x.new_empty(heads, block, width), place.argsort(dim=-1).int()
            state[:, 0] = 0
        arrays = (inverse, pending, rows, token, order, uniforms, state, kept)
        with torch.cuda.device_of(x):  # Triton launches on the current device
            _steps[(heads,)](*arrays, rows.shape[-1], n, EXACT=exact, FREEZE=freeze, **shape)
        inverse.baddbmm_(pending.mT, pending, alpha=-1)
    if short := int(state[:, 2].max()):
        raise RuntimeError(f"{short} tokens are still fractional after {n} steps; the Gram matrix may hold NaN")
    return kept > 0


def _compact(inverse: Tensor, rows: Tensor, token: Tensor, place: Tensor, width: int) -> tuple[Tensor, ...]:
    """Keeps `width` columns a head, the alive ones first."""
    keep = rows[:, 1].sort(dim=-1, descending=True, stable=True).indices[:, :width]
    inverse = inverse.gather(1, keep.unsqueeze(-1).expand(-1, -1, inverse.shape[-1]))
    inverse = inverse.gather(2, keep.unsqueeze(1).expand(-1, width, -1))
    rows = rows.gather(-1, keep.unsqueeze(1).expand(-1, 4, -1))
    return inverse, rows, token.gather(-1, keep), place.gather(-1, keep)


@triton.jit
@no_type_check
def _steps(
    inverse,
    pending,
    rows,
    token,
    order,
    uniforms,
    state,
    kept,
    width,
    tokens,
    BLOCK: tl.constexpr,
    PENDING: tl.constexpr,
    EXACT: tl.constexpr,
    FREEZE: tl.constexpr,
    TILE: tl.constexpr,
):
    """Walks one head until BLOCK tokens are dropped, or all, or all uniforms are used up.

    inverse [w, w]; pending [BLOCK, w], rows to be taken off the inverse, 0 where there are fewer; rows [4, w]: x, 1
    while alive, row sums of the inverse, the pivot's column; token [w] of each column; order [w], columns in the order
    in which they become pivots. state: place of the pivot in `order`, moves so far, alive. kept [tokens] is written.
    """
    head = tl.program_id(0).to(tl.int64)
    inverse += head * width * width
    pending += head * BLOCK * width
    rows += head * 4 * width
    token += head * width
    order += head * width
    kept += head * tokens
    state += head * 3
    cursor, done, left = tl.load(state), tl.load(state + 1), tl.load(state + 2)
    limit = 1 - tl.full((), FREEZE, tl.float64)
    # a token that found no room in the last launch is dropped now; the pivot's column is read anew
    pivot, used, go = -1, 0, left > 0
    total, frozen = _survey(rows, width, limit, TILE)
    while go:
        if frozen < width:
            tl.store(kept + tl.load(token + frozen), (tl.load(rows + frozen) > 0).to(tl.int8))
            total, frozen = _drop(inverse, pending, rows, frozen, pivot, used, width, limit, PENDING, TILE)
            used += 1
            left -= 1
            go = (left > 0) & (used < BLOCK)
        else:
            if done == tokens:
                go = False
            else:
                first = tl.load(order + cursor)
                # the pivot stays until it is frozen: this is what makes the walk's covariance bound hold
                while tl.load(rows + width + first) == 0:
                    cursor += 1
                    first = tl.load(order + cursor)
                if first != pivot:
                    pivot = first
                    _read_column(inverse, pending, rows, pivot, used, width, TILE)
                if EXACT & (left == 1):
                    # the sum is fixed: the last token has nowhere to go and is at an end, up to rounding
                    frozen = pivot
                else:
                    uniform = tl.load(uniforms + head * tokens + done)
                    frozen = _move(rows, pivot, total, uniform, width, limit, EXACT, TILE)
                done += 1
    while used < BLOCK:
        for start in range(0, width, TILE):
            at = start + tl.arange(0, TILE)
            tl.store(pending + used * width + at, tl.zeros([TILE], tl.float64), mask=at < width)
        used += 1
    tl.store(state, cursor)
    tl.store(state + 1, done)
    tl.store(state + 2, left)


@triton.jit
@no_type_check
def _survey(rows, width, limit, TILE: tl.constexpr):
    """Returns the total of the row sums, and the first frozen column, `width` where there is none."""
    totals, firsts = tl.zeros([TILE], tl.float64), tl.full([TILE], 2147483647, tl.int32)
    for start in range(0, width, TILE):
        at = start + tl.arange(0, TILE)
        inside = at < width
        x = tl.load(rows + at, mask=inside, other=0.0)
        totals += tl.load(rows + 2 * width + at, mask=inside, other=0.0)
        firsts = tl.minimum(firsts, tl.where(tl.abs(x) >= limit, at, width))
    return tl.sum(totals, axis=0), tl.min(firsts, axis=0)


@triton.jit
@no_type_check
def _move(rows, pivot, total, uniform, width, limit, EXACT: tl.constexpr, TILE: tl.constexpr):
    """Moves x along u = (column - share sums) scale, where u_pivot = 1 and, if EXACT, the sum is 0; u is never stored.

    Returns the first column that the move froze. Frozen ones have u = 0, and set no limit.
    """
    sums, column = rows + 2 * width, rows + 3 * width
    share = total * 0
    if EXACT:
        share = tl.load(sums + pivot) / total
    scale = 1 / (tl.load(column + pivot) - share * tl.load(sums + pivot))
    ups, downs = tl.full([TILE], float("inf"), tl.float64), tl.full([TILE], float("inf"), tl.float64)
    for start in range(0, width, TILE):
        at = start + tl.arange(0, TILE)
        inside = at < width
        x = tl.load(rows + at, mask=inside, other=0.0)
        u = tl.load(column + at, mask=inside, other=0.0) - share * tl.load(sums + at, mask=inside, other=0.0)
        u *= scale
        size, shift = 1 / tl.maximum(tl.abs(u), 1e-300), tl.where(u > 0, x, -x)
        ups = tl.minimum(ups, (1 - shift) * size)
        downs = tl.minimum(downs, (1 + shift) * size)
    up, down = tl.maximum(tl.min(ups, axis=0), 0.0), tl.maximum(tl.min(downs, axis=0), 0.0)
    step = tl.where(uniform * (up + down) < down, up, -down) * scale
    firsts = tl.full([TILE], 2147483647, tl.int32)
    for start in range(0, width, TILE):
        at = start + tl.arange(0, TILE)
        inside = at < width
        u = tl.load(column + at, mask=inside, other=0.0) - share * tl.load(sums + at, mask=inside, other=0.0)
        x = tl.load(rows + at, mask=inside, other=0.0) + u * step
        tl.store(rows + at, x, mask=inside)
        firsts = tl.minimum(firsts, tl.where(tl.abs(x) >= limit, at, width))
    tl.debug_barrier()
    return tl.min(firsts, axis=0)


@triton.jit
@no_type_check
def _drop(inverse, pending, rows, index, pivot, used, width, limit, PENDING: tl.constexpr, TILE: tl.constexpr):
    """Takes column `index` out of the inverse: adds a pending row, and brings row sums and pivot column up to date.

    Returns what `_survey` then would.
    """
    alive, sums, column = rows + width, rows + 2 * width, rows + 3 * width
    k, far = tl.arange(0, PENDING), index.to(tl.int64) * width
    known = tl.load(pending + k * width + index, mask=k < used, other=0.0)
    own = tl.load(inverse + far + index) - tl.sum(known * known, axis=0)
    at_pivot = tl.load(column + index)
    root = 1 / tl.sqrt(tl.maximum(tl.where(index == pivot, at_pivot, own), 1e-300))
    by_sum, by_pivot = tl.load(sums + index) * root, at_pivot * root
    tl.debug_barrier()  # what every thread has read above is written below
    totals, firsts = tl.zeros([TILE], tl.float64), tl.full([TILE], 2147483647, tl.int32)
    for start in range(0, width, TILE):
        at = start + tl.arange(0, TILE)
        inside, gone = at < width, at == index
        c = tl.load(column + at, mask=inside, other=0.0)
        # the pivot's column is at hand already
        v = c if index == pivot else _column(inverse, pending, index, used, at, width)
        # the mask holds frozen columns at exactly 0 in all that follows
        v = tl.where(gone, 0.0, v * root * tl.load(alive + at, mask=inside, other=0.0))
        tl.store(pending + used * width + at, v, mask=inside)
        r = tl.where(gone, 0.0, tl.load(sums + at, mask=inside, other=0.0) - v * by_sum)
        tl.store(sums + at, r, mask=inside)
        tl.store(column + at, tl.where(gone, 0.0, c - v * by_pivot), mask=inside)
        x = tl.where(gone, 0.0, tl.load(rows + at, mask=inside, other=0.0))
        tl.store(rows + at, x, mask=gone)
        tl.store(alive + at, x, mask=gone)
        totals += r
        firsts = tl.minimum(firsts, tl.where(tl.abs(x) >= limit, at, width))
    tl.debug_barrier()
    return tl.sum(totals, axis=0), tl.min(firsts, axis=0)


@triton.jit
@no_type_check
def _read_column(inverse, pending, rows, pivot, used, width, TILE: tl.constexpr):
    """Writes the pivot's column of the inverse, 0 where frozen, into the last of `rows`."""
    for start in range(0, width, TILE):
        at = start + tl.arange(0, TILE)
        alive = tl.load(rows + width + at, mask=at < width, other=0.0)
        column = _column(inverse, pending, pivot, used, at, width) * alive
        tl.store(rows + 3 * width + at, column, mask=at < width)
    tl.debug_barrier()


@triton.jit
@no_type_check
def _column(inverse, pending, index, used, at, width):
    """Returns the numbers `at` of column `index` of the inverse, less its pending downdates."""
    inside = at < width
    out = tl.load(inverse + index.to(tl.int64) * width + at, mask=inside, other=0.0)
    # four pending rows at a time: as many loads are under way
    for k in range(0, used, 4):
        for row in tl.static_range(4):
            there, here = pending + (k + row) * width, k + row < used
            factor = tl.load(there + index, mask=here, other=0.0)
            out -= factor * tl.load(there + at, mask=inside & here, other=0.0)
    return out
