"""Non-negative Nystrom coresets: tokens by randomly pivoted Cholesky, weights by least squares."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attention_coresets.attention import Coreset
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.base import Construction, Request
from attention_coresets.coresets.kernel.law import SCALES, law
from attention_coresets.coresets.kernel.refit import kernel_weights
from attention_coresets.coresets.kernel.unit_kernel import UnitKernel, unit_kernel
from attention_coresets.coresets.selection import mark, over_heads
from attention_coresets.registry import check_name

_SPENT = 1e-10  # of a feature's squared norm: what is left of it is rounding


@dataclass(frozen=True)
class Nystrom(Construction):
    """Keeps tokens whose features span the others' well, with the weights that best sum to the whole cache.

    Let phi_i be token i's feature in the tilted balancing kernel and psi_i = phi_i / |phi_i|. Randomly pivoted Cholesky
    draws each token with probability proportional to the part of |psi_i|^2 outside the span of the earlier ones, and
    uniformly among the rest once nothing is left. The weights w >= 0 minimise |sum_i phi_i - sum_j w_j phi_j| (the
    "kernel" objective of kernel/refit.py).

    WildCat differs: it draws by what is left of exp<k, k> itself, norms and all, and gives signed Nystrom weights,
    which no log-weight can hold (tests/reference has it).

    scale: of the kernel (kernel/law.py).

    Cost: for one head, O(n m (m + d + dv)) and some 15 solves of m equations. Memory O(n m).

    Source: Chen, Epperly, Tropp and Webber 2022, after WildCat (arXiv 2602.10056).
    """

    model: ClassVar[str] = "free"
    agreement: ClassVar[Agreement] = Agreement.TIES
    scale: str = "auto"

    def __post_init__(self) -> None:
        check_name(self.scale, SCALES, "scale")

    def choose(self, request: Request) -> Coreset:
        cache, size, rho = request.cache, request.size, request.rho

        def of_heads(keys: Tensor, values: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
            kernel = unit_kernel(keys, values, law(keys, rho, "tilted", self.scale))
            tokens = random_pivots(kernel, uniforms)
            return tokens, kernel_weights(kernel, tokens)

        return over_heads(request, of_heads, uniforms=(size,), numbers=size * cache.n)


def random_pivots(kernel: UnitKernel, uniforms: Tensor) -> Tensor:
    """Draws distinct pivots ``[H, m]``, one for each uniform of ``[H, m]``."""
    heads, n = kernel.log_norms.shape
    factor = kernel.log_norms.new_zeros(heads, uniforms.shape[-1], n)
    left, taken, pivots = torch.ones_like(factor[:, 0]), torch.zeros_like(factor[:, 0], dtype=torch.bool), []
    for t, uniform in enumerate(uniforms.unbind(-1)):
        chance = torch.where(taken | (left < _SPENT), torch.zeros_like(left), left)
        chance = torch.where(chance.sum(-1, keepdim=True) > 0, chance, (~taken).to(left.dtype))
        pivot = _draw(chance, uniform)
        mark(taken, pivot)
        pivots.append(pivot)
        at = pivot.unsqueeze(-1)
        own = factor[:, :t].gather(-1, at.unsqueeze(-1).expand(-1, t, 1))  # [H, t, 1]
        row = kernel.rows(at).squeeze(-2) - (own.mT @ factor[:, :t]).squeeze(-2)
        scale = torch.where(left.gather(-1, at) < _SPENT, 0.0, left.gather(-1, at).clamp_min(_SPENT).rsqrt())
        factor[:, t] = row * scale
        left = (left - factor[:, t].square()).clamp_min(0)
    return torch.stack(pivots, dim=-1)


def _draw(chance: Tensor, uniform: Tensor) -> Tensor:
    """Draws a token of each head with probability proportional to `chance`, by the inverse of its running total."""
    total = chance.cumsum(-1)
    token = torch.searchsorted(total, (uniform * total[:, -1]).unsqueeze(-1), right=True).squeeze(-1)
    last = chance.shape[-1] - 1 - (chance > 0).flip(-1).to(torch.uint8).argmax(-1)
    return torch.minimum(token, last)
