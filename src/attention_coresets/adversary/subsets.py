"""Computes the kernel certificate's ceiling of many coresets of one head, from sums over the cache made once."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.adversary.difference import Difference
from attention_coresets.adversary.kernel import OVERFLOW, Series
from attention_coresets.adversary.moments import degrees_needed

_ENTRIES = 2**20  # of the key Gram matrix at once: 8 MB a copy


class SubsetCeilings:
    """What the ceilings about one law of a head share, whatever tokens and weights a coreset has.

    What the series leaves out and the rounding of its moments are those of the coreset that the difference was made
    with. So a ceiling is a search's, good to what these add; `kernel_certificate` proves one.

    Cost: about 2 n^2 J (dv + 2) flops once, for each coreset m (m + n) J dv + m J dv^2 at most, and 240 eigenproblems
    of dv + 1 rows on the CPU. Memory: n J (dv + 1) numbers.
    """

    def __init__(self, law: Difference, rho: float) -> None:
        self.n = law.c.shape[-1]
        self.scale = law.output_radius.clamp_min(1e-300)
        law = replace(law, u=law.u / self.scale[:, None, None])
        z = float(rho * law.reach)
        self.overflows, degrees = z > OVERFLOW, degrees_needed(min(z, OVERFLOW))
        self.x = law.x[0] / law.reach.clamp_min(1e-300)
        ones = torch.ones_like(law.c[0])
        self.features = torch.cat([law.u[0], ones.unsqueeze(-1)], dim=-1)
        self.base = ones if law.weights is None else law.weights[0]
        whole = self.base.unsqueeze(-1) * self.features / self.n
        self.panels = _panels(self.x, whole, degrees)
        self.all = whole.mT @ self.panels  # [J+1, e, e]
        self.series = Series.of(law, rho, self.all[None, :, :-1, :-1].cpu())
        self.centred = self.series.bound(self.series.full, None).clamp_max(1.0)

    def moments(self, tokens: Int[Tensor, "m"], weights: Float[Tensor, "m"]) -> Float[Tensor, "1 degrees e e"]:
        """Returns sum_ik c_i c_k <x_i,x_k>^j f_i f_k^T / n^2 of c = W - w, for weights w of sum n."""
        own = self.features[tokens] * (weights / self.n).unsqueeze(-1)
        cross = own.mT @ self.panels[:, tokens]
        inner = self.x[tokens] @ self.x[tokens].mT
        power, kept = torch.ones_like(inner), []
        for _ in range(self.series.degrees + 1):
            kept.append(own.mT @ (power @ own))
            power = power * inner
        return (self.all - cross - cross.mT + torch.stack(kept)).unsqueeze(0).cpu()

    def ceiling(self, tokens: Int[Tensor, "m"], log_weights: Float[Tensor, "m"]) -> float:
        """Returns the ceiling of a coreset, in the unit of the values."""
        if self.overflows:
            return float("inf")
        found = self.series.ceiling(self.moments(tokens, self.n * log_weights.softmax(-1)), self.centred)
        return float(found) * float(self.scale)


def _panels(x: Tensor, whole: Tensor, degrees: int) -> Float[Tensor, "degrees n e"]:
    """Returns sum_k <x_i,x_k>^j whole_k for every token i and degree j, in blocks of tokens."""
    panels = whole.new_empty(degrees + 1, *whole.shape)
    rows = max(1, _ENTRIES // len(x))
    for block in torch.arange(len(x), device=x.device).split(rows):
        inner = x[block] @ x.mT
        power = torch.ones_like(inner)
        for j in range(degrees + 1):
            panels[j, block] = power @ whole
            power *= inner
    return panels
