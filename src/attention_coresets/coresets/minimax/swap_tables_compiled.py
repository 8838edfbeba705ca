"""The tables of swap_tables.py for one head on the CPU: what torch does in many passes over them, compiled into one.

Matrix products, sums and exponentials stay torch's, and all else rounds as torch does, so that both make the same
swaps, bit by bit. `no_type_check` keeps jaxtyping's test hook from wrapping what numba must compile.
"""

from collections.abc import Sequence
from typing import no_type_check

import numpy as np
import torch
from numba import njit
from torch import Tensor

from attention_coresets.coresets.minimax.swap_tables import LEAST_LOG, MOST_LOG, SCREEN, SwapTables


class OneHead(SwapTables):
    """The tables of one head: the first axis of every tensor is 1."""

    def fill(self, logits: Tensor, log_weights: Tensor, inner: Tensor, values: Tensor) -> None:
        T, N = (torch.empty_like(logits[0], dtype=torch.float32) for _ in range(2))
        _relative(LEAST_LOG, MOST_LOG, *_arrays(logits[0], log_weights[0], inner[0, :, 0], T))
        T.exp_()
        size = self.outputs.square().sum(-1, keepdim=True)
        gap = torch.baddbmm(size, self.outputs, values.mT, alpha=-2, out=logits)
        _gaps(*_arrays(gap[0], values[0].square().sum(-1), T, N))
        self.T, self.N, self.T_of, self.N_of = T, N, T.mT.contiguous(), N.mT.contiguous()
        # a turn's own, and what it reads: some hundred turns need them
        self.H, self.products = torch.empty_like(self.A), self.A.new_empty(2, *self.A.shape[1:])
        self.removal = _arrays(self.A[0], self.T_of, self.v_of, self.H[0], self.products)
        self.at_queries, self.of_tokens = _arrays(T, N), _arrays(self.T_of, self.N_of)

    def without(self, i: Tensor) -> Sequence[Tensor]:
        token = int(i)
        _remove(self.fast[0].numpy(), token, *self.removal)
        size, along = self.products.sum(-1, keepdim=True).unbind()
        return self.H, size.mT, along.mT, (self.Z - self.T_of[token]).to(torch.float32)

    def screened(self, left: Sequence[Tensor]) -> Tensor:
        H, size, along, Z = left
        worst = (size / Z.square().clamp_min(1e-30)).topk(min(SCREEN, size.shape[-1])).indices[0]
        e = torch.baddbmm(-2 * along[:, worst].unsqueeze(-1), H[:, worst], self.v.mT, alpha=2)
        _at_queries(*self._scalars(), *self.at_queries, *_arrays(e[0], worst, size[0], Z[0]))
        return e.sum(-2)

    def tried(self, left: Sequence[Tensor], tokens: Tensor) -> Tensor:
        H, size, along, Z = left
        e = torch.baddbmm(-2 * along.unsqueeze(-1), H, self.v_of.index_select(0, tokens[0]).unsqueeze(0).mT, alpha=2)
        _of_tokens(*self._scalars(), *self.of_tokens, *_arrays(e[0], tokens[0], size[0], Z[0]))
        return e.sum(-2)

    def _scalars(self) -> tuple[np.float32, int]:
        return np.float32(self.fast_unit.item()), self.doublings

    def moved(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        F, Z, square = (torch.empty_like(x) for x in (self.F, self.Z, self.F))
        before = self.F[0], self.Z[0], self.outputs[0], self.values, self.T_of
        _exchange(int(i), int(j), *_arrays(*before, F[0], Z[0], square[0]))
        return F, Z, square


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [x.numpy() for x in tensors]


@njit(cache=True, nogil=True, fastmath={"contract"})
@no_type_check
def _fused(a, b, c):
    """Computes a b + c, rounded once where the processor can, as torch.addcmul."""
    return a * b + c


@njit(cache=True, nogil=True)
@no_type_check
def _relative(least, most, logits, log_weights, inner, out):
    for r in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[r, j] = min(max((logits[r, j] + log_weights[j]) - inner[r], least), most)


@njit(cache=True, nogil=True)
@no_type_check
def _gaps(gap, squares, T, N):
    for r in range(T.shape[0]):
        for j in range(T.shape[1]):
            N[r, j] = np.float32(max(gap[r, j] + squares[j], 0.0)) * T[r, j] * T[r, j]


@njit(cache=True, nogil=True)
@no_type_check
def _remove(F, i, A, T_of, v, H, products):
    """H = F + T_i (A - v_i), its square and its product with A."""
    for r in range(F.shape[0]):
        for k in range(F.shape[1]):
            h = _fused(T_of[i, r], A[r, k] - v[i, k], F[r, k])
            H[r, k], products[0, r, k], products[1, r, k] = h, h * h, h * A[r, k]


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _at_queries(unit, doublings, T, N, e, queries, size, Z):
    """Puts powers of errors in place of e [c, n], at some queries and for all tokens."""
    for row in range(e.shape[0]):
        r = queries[row]
        for j in range(e.shape[1]):
            t = T[r, j]
            below = (t + Z[r]) * unit
            e[row, j] = (_fused(e[row, j], t, N[r, j]) + size[r]) / (below * below)
        for _ in range(doublings):
            for j in range(e.shape[1]):
                e[row, j] *= e[row, j]


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _of_tokens(unit, doublings, T_of, N_of, e, tokens, size, Z):
    """Puts powers of errors in place of e [b, k], at all queries and for some tokens."""
    for column in range(e.shape[1]):
        j = tokens[column]
        for r in range(e.shape[0]):
            t = T_of[j, r]
            below = (t + Z[r]) * unit
            x = (_fused(e[r, column], t, N_of[j, r]) + size[r]) / (below * below)
            for _ in range(doublings):
                x *= x
            e[r, column] = x


@njit(cache=True, nogil=True)
@no_type_check
def _exchange(i, j, F, Z, outputs, values, T_of, new_F, new_Z, square):
    """F and Z once i gave way to j, and the square of F."""
    for r in range(F.shape[0]):
        out, into = np.float64(T_of[i, r]), np.float64(T_of[j, r])
        new_Z[r] = (Z[r] - out) + into
        for k in range(F.shape[1]):
            f = _fused(-out, values[i, k] - outputs[r, k], F[r, k])
            f = _fused(into, values[j, k] - outputs[r, k], f)
            new_F[r, k], square[r, k] = f, f * f
