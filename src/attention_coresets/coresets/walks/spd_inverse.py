"""Inverts one symmetric positive definite matrix, in place and in its lower triangle, mostly by matrix products."""

import torch
from jaxtyping import Float
from torch import Tensor


def invert_lower_(a: Float[Tensor, "n n"], tile: int | None = None) -> bool:
    """Overwrites the lower triangle of `a` by that of its inverse; returns False where `a` is not positive definite.

    Only the lower triangle of `a` is read, and what is above the diagonal afterwards has no meaning. It factors a = L
    L^T, inverts L, and multiplies L^-T L^-1, each a tile of rows or columns at a time. `tile` None is 128, or 256 above
    n = 1536: the fastest where it was tuned.

    Cost: n^3 flops, nearly all in matrix products, where LAPACK's factor and inverse spend a larger part below their
    rate. Memory: a strip of n x tile numbers.
    """
    tile = tile or (256 if len(a) > 1536 else 128)
    starts = range(0, len(a), tile)
    diagonals = []
    for start in starts:
        inverse = _factor_tile_(a, start, start + tile)
        if inverse is None:
            return False
        diagonals.append(inverse)
    for start, diagonal in zip(starts, diagonals, strict=True):
        _invert_tile_(a, start, tile, diagonal)
    for start in starts:
        stop = start + tile
        a[start:stop, :stop] = a[start:, start:stop].mT @ a[start:, :stop]
    return True


def invert_regular_(gram: Float[Tensor, "n n"], ridge: float) -> None:
    """Overwrites the lower triangle of a Gram matrix by that of the inverse of it plus ridge * its mean diagonal.

    Raises RuntimeError where the sum is not positive definite.
    """
    diagonal = gram.diagonal()
    level = float(diagonal.mean()) if len(diagonal) else 1.0
    diagonal.add_(ridge * (level if level > 0 else 1.0))
    if not invert_lower_(gram):
        raise RuntimeError(f"the Gram matrix is not positive definite with ridge {ridge}; raise the ridge")


def _factor_tile_(a: Tensor, start: int, stop: int) -> Tensor | None:
    """Factors one column tile and brings the rest of `a` up to date; returns the inverse of its diagonal block."""
    factor, failed = torch.linalg.cholesky_ex(a[start:stop, start:stop])
    if int(failed):
        return None
    one = torch.eye(len(factor), dtype=a.dtype, device=a.device)
    inverse = torch.linalg.solve_triangular(factor, one, upper=False)
    panel = a[stop:, start:stop] = a[stop:, start:stop] @ inverse.mT
    for low in range(stop, len(a), stop - start):
        rest = slice(low, low + stop - start)
        a[rest, stop : rest.stop].addmm_(panel[low - stop : rest.stop - stop], panel[: rest.stop - stop].mT, alpha=-1)
    return inverse


def _invert_tile_(a: Tensor, start: int, tile: int, diagonal: Tensor) -> None:
    """Computes one row tile of L^-1 from the rows above it: -D (L_row L_above^-1), D the diagonal block's inverse."""
    rows = slice(start, start + tile)
    for low in range(0, start, tile):
        columns = slice(low, low + tile)
        # above row `low` these columns are zero in L^-1 (and hold anything in `a`)
        a[rows, columns] = a[rows, low:start] @ a[low:start, columns]
    if start:
        a[rows, :start] = diagonal @ a[rows, :start].neg_()
    a[rows, rows] = diagonal
