"""Computes what the moments of all degrees share: their Gram sums, how many are needed, what the others may add."""

import math

import torch
from torch import Tensor

_DEGREES = 80  # at most; beyond, the rest of the series is bounded by norms
_NEGLIGIBLE = 1e-9  # share of e^z that the rest of the series may hold
_ENTRIES = 2**20  # of the key Gram matrix at once: 8 MB a copy


def token_moments(
    x: Tensor, u: Tensor, c: Tensor, degrees: int, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Computes sum_ik <x_i,x_k>^j f_i f_k^T / n^2 for j = 0..degrees, by blocks of rows and heads.

    Returns them for f = W u and for f = c (u, 1).
    """
    heads, n, dv = u.shape
    signed = torch.cat([u, torch.ones_like(c).unsqueeze(-1)], dim=-1) * c.unsqueeze(-1)
    both = torch.cat([u if weights is None else u * weights.unsqueeze(-1), signed], dim=-1) / n
    out = both.new_zeros(heads, degrees + 1, 2 * dv + 1, 2 * dv + 1)
    group = max(1, _ENTRIES // n**2)
    for a in range(0, heads, group):
        head, rows = slice(a, a + group), max(1, _ENTRIES // (n * min(group, heads - a)))
        for b in range(0, n, rows):
            left, right = both[head, b : b + rows].mT, both[head, b:]
            inner = x[head, b : b + rows] @ x[head, b:].mT
            power = torch.ones_like(inner)
            # of the symmetric sum only the blocks on and right of the diagonal are met; the transpose added at the end
            # counts the others, and the diagonal one twice
            power[..., : left.shape[-1]] = 0.5
            for j in range(degrees + 1):
                out[head, j] += left @ (power @ right)
                power *= inner
    out = out + out.mT
    return out[..., :dv, :dv], out[..., dv:, dv:]


def degrees_needed(z: float) -> int:
    """Returns the least J with sum_{j > J} z^j / j! <= _NEGLIGIBLE e^z, at most _DEGREES."""
    j = torch.arange(1, _DEGREES + 1, dtype=torch.float64)
    logs = log_tail(torch.tensor([z], dtype=torch.float64), j)
    small = (logs <= math.log(_NEGLIGIBLE) + z).nonzero()
    return int(j[small[0, 0]]) if len(small) else _DEGREES


def log_tail(z: Tensor, degrees: Tensor) -> Tensor:
    """Returns the log of a bound on sum_{j > degrees} z^j / j!: first term over 1 - z / (degrees + 2), or e^z."""
    ratio = z / (degrees + 2)
    first = (degrees + 1) * z.clamp_min(1e-300).log() - torch.lgamma(degrees + 2)
    return torch.where(ratio < 0.9, first - torch.log1p(-ratio.clamp_max(0.9)), z)
