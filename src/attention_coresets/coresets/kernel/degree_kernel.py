"""The kernel whose quadratic form bounds the kernel certificate, for weights of its degrees."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.adversary.degree_weights import DegreeWeights
from attention_coresets.adversary.subsets import SubsetCeilings


class DegreeKernel:
    """G_ik = sum_j alpha_j <x_i,x_k>^j (u_i,1)^T Y (u_k,1), centred at the cache's weights W / n.

    Over weights w of sum n, w^T G w is c^T G c of the kernel that is not centred, for c = W - w.

    Cost: n J (dv + 1) flops once, J + d an entry.
    """

    def __init__(self, head: SubsetCeilings, found: DegreeWeights) -> None:
        self.head = head
        self.alpha, mixture = (part[0].to(head.x.device) for part in (found.alpha, found.mixture))
        self.mixed = head.features @ mixture
        summed = torch.einsum("j,jne->ne", self.alpha, head.panels)
        self.means = (self.mixed * summed).sum(-1)  # [n], sum_k G_ik W_k / n
        self.mean = self.means @ (head.base / head.n)

    def among(self, tokens: Int[Tensor, "p"]) -> Float[Tensor, "p p"]:
        """Returns G between tokens."""
        means = self.means[tokens]
        return self._raw(tokens, tokens).sub_(means.unsqueeze(-1)).sub_(means).add_(self.mean)

    def promising(self, tokens: Int[Tensor, "m"], weights: Float[Tensor, "m"], count: int) -> Int[Tensor, "p"]:
        """Returns, sorted, the tokens given and those of which a little weight lowers the form most, `count` in all.

        A step from w of sum n towards token i alone, t (n e_i - w), changes w^T G w by 2 t n s_i at first, with
        s_i = (G w)_i - w^T G w / n. The best t gains about s_i^2 / G_ii, where s_i < 0.
        """
        n, everyone = self.head.n, torch.arange(self.head.n, device=tokens.device)
        kept = self.means[tokens] @ weights
        slopes = weights @ self._raw(tokens, everyone) - n * self.means - kept + n * self.mean
        squares = self.head.x.square().sum(-1)
        own = self._polynomial(squares) * (self.mixed * self.head.features).sum(-1) - 2 * self.means + self.mean
        gains = ((weights @ slopes[tokens]) / n - slopes).clamp_min(0).square() / own.clamp_min(1e-300)
        gains[tokens] = torch.inf
        return gains.topk(count).indices.sort().values

    def _raw(self, rows: Tensor, columns: Tensor) -> Tensor:
        x = self.head.x
        return self._polynomial(x[rows] @ x[columns].mT).mul_(self.mixed[rows] @ self.head.features[columns].mT)

    def _polynomial(self, inner: Tensor) -> Tensor:
        total = torch.zeros_like(inner)
        for weight in self.alpha.flip(0):
            total.mul_(inner).add_(weight)
        return total
