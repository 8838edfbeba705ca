"""WildCat: signed Nystroem weights on a subset drawn by randomly pivoted Cholesky."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.attention import Cache
from attention_coresets.coresets.base import check_plain, check_size
from attention_coresets.coresets.randomness import Generators, draw
from attention_coresets.theory import check_rho

_EXHAUSTED = 1e-12  # of the kernel's diagonal, 1: what is left of it is rounding


@dataclass(frozen=True)
class SignedAttention:
    """sum_j exp<q,k_j> u_j / sum_j exp<q,k_j> w_j over the m kept keys, clipped to the box of the cache's values.

    indices ``[*heads, m]`` of the kept tokens, keys ``[*heads, m, d]`` (centred), values u = W V ``[*heads, m, dv]``,
    mass w = W 1 ``[*heads, m]`` of any sign; low and high ``[*heads, 1, dv]``: the box. float64.
    """

    indices: Int[Tensor, "*heads m"]
    keys: Float[Tensor, "*heads m d"]
    values: Float[Tensor, "*heads m dv"]
    mass: Float[Tensor, "*heads m"]
    low: Float[Tensor, "*heads 1 dv"]
    high: Float[Tensor, "*heads 1 dv"]

    def attend(self, queries: Float[Tensor, "*heads b d"]) -> Float[Tensor, "*heads b dv"]:
        """The approximation at float64 queries; a denominator of 0 counts as one of the smallest size."""
        logits = queries @ self.keys.mT  # [*heads, b, m]
        kernel = (logits - logits.amax(dim=-1, keepdim=True)).exp()
        below = kernel @ self.mass.unsqueeze(-1)  # [*heads, b, 1]
        below = torch.where(below.abs() < 1e-300, torch.full_like(below, 1e-300), below)
        return torch.minimum(torch.maximum(kernel @ self.values / below, self.low), self.high)


@dataclass(frozen=True)
class WildCat:
    """Schroeder and Mackey, arXiv 2602.10056, github.com/microsoft/wildcat, one bin.

    Keys are centred at their mean, R the largest norm left. The kernel is h(x, y) = exp(a^2 <x, y>) with
    a^2 = (rho / R) 2 W_0(b / 2 rho_0) / b, b = log(n) / (rho R) + 2, rho_0 = sqrt(1 + exp(2 W_0(2 / e^2) + 2)), which
    trades the kernel's rank against the norm of the queries. Pivots are drawn with chance proportional to what is left
    of its diagonal; with S the pivots, W = h(S, S)^{-1} h(S, all) weighs numerator and denominator alike:
    exp<q,S> W V / exp<q,S> W 1. Cost O(n size^2 + n size d) a head; float64.
    """

    def __call__(self, cache: Cache, size: int, rho: float, generator: Generators) -> SignedAttention:
        """`size` tokens a head (all, with weights 1, from n on); weights 0 once the kernel's rank is exhausted."""
        check_rho(rho)
        check_size(size)
        check_plain(cache)
        keys, values = (t.reshape(-1, *t.shape[-2:]).to(torch.float64) for t in (cache.keys, cache.values))
        keys = keys - keys.mean(dim=-2, keepdim=True)
        if size >= cache.n:
            pivots = torch.arange(cache.n, device=keys.device).repeat(len(keys), 1)
            weights = torch.eye(cache.n, dtype=keys.dtype, device=keys.device).repeat(len(keys), 1, 1)
        else:
            x = keys * _temperature(keys, rho).sqrt()[:, None, None]
            pivots, weights = nystroem_weights(x, draw(generator, len(keys), size).to(x))
        low, high = values.amin(dim=-2, keepdim=True), values.amax(dim=-2, keepdim=True)
        kept = Cache(keys, values).take(pivots)[0]
        parts = (pivots, kept, weights @ values, weights.sum(dim=-1), low, high)
        return SignedAttention(*(p.reshape(*cache.heads, *p.shape[1:]) for p in parts))


def nystroem_weights(
    x: Float[Tensor, "H n d"], uniforms: Float[Tensor, "H m"]
) -> tuple[Int[Tensor, "H m"], Float[Tensor, "H m n"]]:
    """Pivots S, sorted, and W = h(S, S)^{-1} h(S, all) for h(x, y) = e^{<x, y>}, one uniform a pivot.

    The Cholesky factor is that of the Gaussian kernel, which differs from h by a factor for each token.
    """
    (heads, n, _), m = x.shape, uniforms.shape[-1]
    rows, half = torch.arange(heads, device=x.device), x.square().sum(-1) / 2
    lift = (2 * (half - half.amax(dim=-1, keepdim=True))).exp()
    factor, left = x.new_zeros(heads, n, m), torch.ones_like(half)
    pivots, free = torch.zeros_like(uniforms, dtype=torch.int64), torch.ones_like(half)
    for j in range(m):
        chance = left * lift
        spent = chance.sum(-1, keepdim=True) <= 0
        chance = torch.where(spent, free, chance).cumsum(dim=-1)
        pivot = torch.searchsorted(chance, uniforms[:, j : j + 1] * chance[:, -1:], right=True).squeeze(-1)
        kernel = (torch.einsum("hnd,hd->hn", x, x[rows, pivot]) - half - half[rows, pivot, None]).exp()
        column = kernel - (factor[:, :, :j] @ factor[rows, pivot, :j, None]).squeeze(-1)
        column = column * free / left[rows, pivot, None].sqrt()  # earlier pivots are explained: their entries are 0
        factor[:, :, j] = torch.where(spent, torch.zeros_like(column), column)
        free[rows, pivot], pivots[:, j] = 0.0, pivot
        left = (left - factor[:, :, j].square()) * free
        left = torch.where(left < _EXHAUSTED, torch.zeros_like(left), left)
    triangle = factor.gather(-2, pivots.unsqueeze(-1).expand(-1, -1, m))  # [H, m, m], lower
    triangle = triangle + torch.diag_embed((triangle.diagonal(dim1=-2, dim2=-1) == 0).to(x))
    weights = torch.linalg.solve_triangular(triangle.mT, factor.mT, upper=True)
    weights = weights * (half.unsqueeze(-2) - half.gather(-1, pivots).unsqueeze(-1)).exp()
    pivots, order = pivots.sort(dim=-1)
    return pivots, weights.gather(-2, order.unsqueeze(-1).expand(-1, -1, n))


def _temperature(keys: Float[Tensor, "H n d"], rho: float) -> Float[Tensor, "H"]:
    """a^2 of the kernel."""
    radius = keys.norm(dim=-1).amax(dim=-1).clamp_min(1e-12)
    rho_0 = math.sqrt(1 + math.exp(2 * float(_lambert(torch.tensor(2 / math.e**2, dtype=torch.float64))) + 2))
    b = math.log(keys.shape[-2]) / (rho * radius) + 2
    return rho / radius * 2 * _lambert(b / (2 * rho_0)) / b


def _lambert(x: Tensor) -> Tensor:
    """W_0 of x > 0, the w with w e^w = x, by Newton's method on w + log w = log x."""
    w = torch.log1p(x)
    for _ in range(50):
        w = w * (1 + x.log() - w.log()) / (1 + w)
    return w
