"""The balancing kernel with features of norm 1, by columns: for constructions that never need its n x n matrix."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.coresets.kernel.law import Law

DENSE = 4096  # tokens up to which a dense matrix is worth its memory
_BLOCK = 2**24  # kernel entries computed at once


@dataclass(frozen=True)
class UnitKernel:
    """Inner products of psi_i = phi_i / |phi_i|, with phi the features of `balancing_gram` (law.py) without weights.

    <phi_i, phi_j> = exp(a^2 <k_i - mu, k_j - mu>) (<v_i, v_j> + 1). So <psi_i, psi_j> is a Gaussian of width 1/a in the
    keys, times the cosine of (v_i, 1) and (v_j, 1).

    keys: ``[H, n, d]``, a (k - mu).
    halves: ``[H, n]``, half their squared norms.
    values: ``[H, n, dv + 1]``, the unit vectors of (v, 1), v in units of the largest value norm.
    log_norms: ``[H, n]``, log |phi_i| less the head's largest.
    matrix: all of it where it is worth its memory, so that rows are looked up.
    """

    keys: Float[Tensor, "H n d"]
    halves: Float[Tensor, "H n"]
    values: Float[Tensor, "H n e"]
    log_norms: Float[Tensor, "H n"]
    matrix: Float[Tensor, "H n n"] | None = None

    def rows(self, tokens: Int[Tensor, "H c"]) -> Float[Tensor, "H c n"]:
        """Returns <psi_i, psi_j> for i in `tokens` and every j.

        Cost: O(c n (d + dv)) a head, or O(c n) with the matrix.
        """
        if self.matrix is not None:
            return self.matrix.gather(-2, tokens.unsqueeze(-1).expand(-1, -1, self.matrix.shape[-1]))
        return _kernel(self._at(tokens), (self.keys, self.halves, self.values))

    def among(self, tokens: Int[Tensor, "H c"]) -> Float[Tensor, "H c c"]:
        """Returns <psi_i, psi_j> for i and j in `tokens`."""
        return _kernel(self._at(tokens), self._at(tokens))

    def sums(self, weights: Float[Tensor, "H n"], tokens: Int[Tensor, "H c"]) -> Float[Tensor, "H c"]:
        """Returns sum_j weights_j <psi_i, psi_j> for i in `tokens`, computed in blocks of bounded memory.

        Cost: O(c n (d + dv)) a head.
        """
        width = max(1, _BLOCK // self.log_norms.numel())
        return torch.cat([self._sums(t, weights) for t in tokens.split(width, dim=-1)], dim=-1)

    def everywhere(self, weights: Float[Tensor, "H n"]) -> Float[Tensor, "H n"]:
        """Returns sum_j weights_j <psi_i, psi_j> for every i.

        Cost: O(n^2 (d + dv)) a head, or O(n^2) with the matrix.
        """
        if self.matrix is not None:
            return (self.matrix @ weights.unsqueeze(-1)).squeeze(-1)
        return self.sums(weights, torch.arange(weights.shape[-1], device=weights.device).expand_as(weights))

    def _sums(self, tokens: Tensor, weights: Tensor) -> Tensor:
        if self.matrix is not None:
            return (self.rows(tokens) @ weights.unsqueeze(-1)).squeeze(-1)
        # as attention does: exponentials times weighted values, so that products of values with values are never made
        x, half_x, v = self._at(tokens)
        sums = _exponentials((x, half_x), (self.keys, self.halves)) @ (self.values * weights.unsqueeze(-1))
        return (sums * v).sum(-1)

    def _at(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values = (
            x.gather(-2, tokens.unsqueeze(-1).expand(-1, -1, x.shape[-1])) for x in (self.keys, self.values)
        )
        return keys, self.halves.gather(-1, tokens), values


def unit_kernel(
    keys: Float[Tensor, "H n d"], values: Float[Tensor, "H n dv"], law: Law, *, dense: bool = False
) -> UnitKernel:
    """Makes the kernel of `balancing_gram` at this law's centre and scale; `dense` adds its matrix up to n = 4096."""
    x = (keys - law.center.unsqueeze(-2)) * law.scale.sqrt()[:, None, None]
    v = values / values.norm(dim=-1).amax(dim=-1).clamp_min(1e-300)[:, None, None]
    v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
    length = v.norm(dim=-1)  # [H, n], at least 1
    halves = 0.5 * x.square().sum(-1)
    log_norms = halves + length.log()
    parts = (x, halves, v / length.unsqueeze(-1))
    matrix = _kernel(parts, parts) if dense and keys.shape[-2] <= DENSE else None
    return UnitKernel(*parts, log_norms - log_norms.amax(dim=-1, keepdim=True), matrix)


def _kernel(one: tuple[Tensor, Tensor, Tensor], other: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    return _exponentials(one[:2], other[:2]).mul_(one[2] @ other[2].mT)


def _exponentials(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    (x, half_x), (y, half_y) = one, other
    logits = (x @ y.mT).sub_(half_x.unsqueeze(-1)).sub_(half_y.unsqueeze(-2))
    return logits.clamp_max_(0).exp_()
