"""The balancing kernel with features of norm 1, by columns: for constructions that never need its n x n matrix."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.attention import Cache
from attention_coresets.coresets.law import Law

_BLOCK = 2**24  # kernel entries computed at once


@dataclass(frozen=True)
class UnitKernel:
    """psi_i = phi_i / |phi_i| for the features phi of `law.balancing_gram` without weights.

    <phi_i, phi_j> = exp(a^2 <k_i - mu, k_j - mu>) (<v_i, v_j> + 1), so <psi_i, psi_j> is a Gaussian of width 1/a in the
    keys times the cosine of (v_i, 1) and (v_j, 1).

    keys ``[H, n, d]``: a (k - mu); values ``[H, n, dv + 1]``: the unit vectors of (v, 1), v in units of the largest
    value norm; log_norms ``[H, n]``: log |phi_i| less the head's largest.
    """

    keys: Float[Tensor, "H n d"]
    values: Float[Tensor, "H n e"]
    log_norms: Float[Tensor, "H n"]

    def rows(self, tokens: Int[Tensor, "H c"]) -> Float[Tensor, "H c n"]:
        """<psi_i, psi_j> for i in `tokens` and every j. O(c n (d + dv)) a head."""
        return _kernel(self._at(tokens), (self.keys, self.values))

    def among(self, tokens: Int[Tensor, "H c"]) -> Float[Tensor, "H c c"]:
        """<psi_i, psi_j> for i and j in `tokens`."""
        return _kernel(self._at(tokens), self._at(tokens))

    def sums(self, weights: Float[Tensor, "H n"], tokens: Int[Tensor, "H c"]) -> Float[Tensor, "H c"]:
        """sum_j weights_j <psi_i, psi_j> for i in `tokens`, in blocks of bounded memory. O(c n (d + dv)) a head."""
        width = max(1, _BLOCK // self.log_norms.numel())
        blocks = tokens.split(width, dim=-1)
        return torch.cat([(self.rows(t) @ weights.unsqueeze(-1)).squeeze(-1) for t in blocks], dim=-1)

    def everywhere(self, weights: Float[Tensor, "H n"]) -> Float[Tensor, "H n"]:
        """sum_j weights_j <psi_i, psi_j> for every i. O(n^2 (d + dv)) a head."""
        return self.sums(weights, torch.arange(weights.shape[-1], device=weights.device).expand_as(weights))

    def _at(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return Cache(self.keys, self.values).take(tokens)


def unit_kernel(keys: Float[Tensor, "H n d"], values: Float[Tensor, "H n dv"], law: Law) -> UnitKernel:
    """The kernel of `law.balancing_gram` at this law's centre and scale."""
    x = (keys - law.center.unsqueeze(-2)) * law.scale.sqrt()[:, None, None]
    v = values / values.norm(dim=-1).amax(dim=-1).clamp_min(1e-300)[:, None, None]
    v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
    length = v.norm(dim=-1)  # [H, n], at least 1
    log_norms = 0.5 * x.square().sum(-1) + length.log()
    return UnitKernel(x, v / length.unsqueeze(-1), log_norms - log_norms.amax(dim=-1, keepdim=True))


def _kernel(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    (x, v), (y, u) = one, other
    logits = (x @ y.mT).sub_(0.5 * x.square().sum(-1).unsqueeze(-1)).sub_(0.5 * y.square().sum(-1).unsqueeze(-2))
    return logits.clamp_max_(0).exp_().mul_(v @ u.mT)
