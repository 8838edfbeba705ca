"""Draws at the exact sensitivities: each token's marginal follows its largest softmax share."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attention_coresets.attention import Coreset
from attention_coresets.checks import positive
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.base import Construction, Cost, Request
from attention_coresets.coresets.draws.sensitivities import sensitivities
from attention_coresets.coresets.draws.systematic import weighted_draws
from attention_coresets.coresets.selection import over_heads


@dataclass(frozen=True)
class SensitivityDraws(Construction):
    """Draws the tokens that some query of the ball looks at, each with the weight that makes sums unbiased.

    Let s_i be the supremum of softmax_i(q) over |q| <= rho, token i's sensitivity. Its marginal is pi_i = min(1, c
    s_i), with c such that the marginals sum to `size`, and its log-weight -log pi_i. Tokens are drawn by systematic
    sampling after a random permutation.

    For error epsilon it takes O~(d T / epsilon^2) tokens, with T = sum_i s_i at most e^{rho sigma}, the tilt's bound.

    tolerance: how exactly the s_i are found, in nats (sensitivities.py).

    Cost: that of `sensitivities`, and O(n log n).

    Source: sensitivity sampling, Langberg and Schulman 2010.
    """

    model: ClassVar[str] = "tilted"
    agreement: ClassVar[Agreement] = Agreement.TOKENS
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        positive(tolerance=self.tolerance)

    def cost(self, n: int, size: int, d: int) -> Cost:
        """Estimates a few steps of a climb for each token, over all tokens."""
        return Cost(8 * n, 8 * n**2 * d)

    def choose(self, request: Request) -> Coreset:
        cache, size, rho = request.cache, request.size, request.rho

        def of_heads(keys: Tensor, values: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
            found = sensitivities(keys, rho, self.tolerance)
            return weighted_draws(found.log_lower, size, uniforms[:, 0, 0], uniforms[:, 1].argsort(dim=-1))

        return over_heads(request, of_heads, uniforms=(2, cache.n), numbers=8 * cache.n)
