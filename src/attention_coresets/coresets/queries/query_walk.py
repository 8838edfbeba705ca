"""The Gram-Schmidt walk on a model's own queries: signs that balance their softmax weights."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attention_coresets.attention import Coreset
from attention_coresets.checks import not_negative, one_of, positive
from attention_coresets.coresets.agreement import Agreement, of_refinement
from attention_coresets.coresets.base import Construction, Cost, Request, kept_tokens
from attention_coresets.coresets.kernel.kernel_swaps import kernel_swaps
from attention_coresets.coresets.kernel.law import capped_marginals
from attention_coresets.coresets.queries.calibration import MARGINALS, calibration, gram, log_sensitivities
from attention_coresets.coresets.randomness import draw
from attention_coresets.coresets.walks.walk import random_places, walk_signs

REFINEMENTS = ("none", "kernel_swaps")
_CERTAIN = 50.0  # nats above every other token: capped at pi = 1


@dataclass(frozen=True)
class QueryWalk(Construction):
    """Keeps the tokens that the model's queries look at, so chosen that kept and dropped ones balance at these queries.

    It is `GramSchmidtWalk` for the queries a model asks in place of a ball of queries. Token i has the marginal pi_i =
    min(1, c p_i), with the law p that `marginals` names and c such that the marginals sum to `size`, and log-weight
    -log pi_i. The walk rounds 2 pi - 1 to signs that balance the kernel

        mean_q softmax_i(q) softmax_j(q) (<v_i, v_j> + 1) / (pi_i pi_j),   q the calibration queries.

    A token that a query gives most of its attention, a sink, gets pi = 1 by itself.

    marginals: "rms", "max" or "smoothed" (`log_sensitivities`).
    refinement: "none", or "kernel_swaps" for a pass of swaps on the same kernel.
    moved: True where the caller passes the queries as if asked right after the cache, which they then see all of
        (rotary positions moved on). False: as they were asked, and each sees what came before it.
    sinks: first tokens of the text that are kept whatever the queries.
    ridge: added to the kernel's diagonal, in units of its mean.

    Cost: O(n^3) a head, and b n^2 for the kernel.

    Source: the kernel and the RMS marginals are this project's (docs/theory.md, docs/real_caches.md).
    """

    marginals: str = "rms"
    refinement: str = "none"
    moved: bool = True
    sinks: int = 0
    ridge: float = 1e-4
    model: ClassVar[str] = "tilted"
    model_units: ClassVar[bool] = True
    needs_queries: ClassVar[bool] = True
    needs_positions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        one_of("marginals", self.marginals, MARGINALS)
        one_of("refinement", self.refinement, REFINEMENTS)
        positive(ridge=self.ridge)
        not_negative(sinks=self.sinks)

    @property
    def agreement(self) -> Agreement:
        """Tells how far two runs may differ by rounding."""
        return of_refinement(self.model, self.refinement)

    def cost(self, n: int, size: int, d: int) -> Cost:
        """Estimates the walk on the n x n kernel."""
        return Cost(3 * n**2, n**3 + 4 * n**2 * d)

    def choose(self, request: Request) -> Coreset:
        cache, size = request.cache, request.size
        uniforms = draw(request.generator, request.heads, 2, cache.n)
        kernel, log_p = self._once(request)
        if self.sinks:
            sinks = (request.rank < self.sinks).reshape(log_p.shape)
            log_p = log_p.masked_fill(sinks, log_p.max() + _CERTAIN)
        marginals = capped_marginals(log_p, size)
        log_weights = -marginals.clamp_min(1e-300).log()
        weighted = weighted_gram(kernel, log_weights)
        uniforms = uniforms.to(weighted.device)
        place = random_places(uniforms)
        swaps = self.refinement == "kernel_swaps"
        walked = weighted.clone() if swaps else weighted  # the walk overwrites it
        kept = walk_signs(walked, 2 * marginals - 1, uniforms[:, 0].contiguous(), self.ridge, place=place)
        if swaps:
            kept = kernel_swaps(weighted, kept, (weighted @ marginals.unsqueeze(-1)).squeeze(-1))
        indices = kept_tokens(kept, size)
        shape = (*cache.heads, size)
        return Coreset(indices.reshape(shape), log_weights.gather(-1, indices).reshape(shape))

    def _once(self, request: Request) -> tuple[Tensor, Tensor]:
        """The kernel and log p, which are the same for every size."""

        def make() -> tuple[Tensor, Tensor]:
            found = calibration(request.cache, request.asked, None if self.moved else request.rank)
            return gram(found), log_sensitivities(found, self.marginals)

        return make() if request.shared is None else request.shared.once("moment", make)


def weighted_gram(kernel: Tensor, log_weights: Tensor) -> Tensor:
    """Computes kernel_ij w_i w_j, its largest diagonal scaled to 1 in each head; rows of what no query sees are 0."""
    log_norms = 0.5 * kernel.diagonal(dim1=-2, dim2=-1).clamp_min(1e-300).log() + log_weights
    scale = (log_weights - log_norms.amax(-1, keepdim=True)).clamp(-300, 300).exp()
    return kernel.mul(scale.unsqueeze(-1)).mul_(scale.unsqueeze(-2))
