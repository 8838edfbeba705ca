"""Expected attention: the weight a token can expect from Gaussian queries, times the norm of its value."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.attention import Cache, Coreset
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.eviction.scores import (
    check_queries,
    check_request,
    first,
    position_rank,
    top_scores,
)
from attention_coresets.coresets.uniforms import Generators


@dataclass(frozen=True)
class ExpectedAttention:
    """Devoto et al., arXiv 2510.00636: for q ~ N(mu, Sigma), log E exp<q,k> = <mu,k> + <k, Sigma k> / 2.

    mu and Sigma of each query head are the mean and covariance (over b) of the queries given, which the caller has
    moved to the positions after the cache (`moved`), as the source rotates them there. The softmax of these logits over
    all tokens but the first `sinks`, its mean over the group, plus `epsilon`, times |v_i|; the sinks are kept. Cost
    O(group (b + n) d^2).
    """

    sinks: int = 4
    epsilon: float = 0.0
    model: ClassVar[str] = "unweighted"
    model_units: ClassVar[bool] = True
    needs_queries: ClassVar[bool] = True
    moved: ClassVar[bool] = True
    needs_positions: ClassVar[bool] = True
    agreement: ClassVar[Agreement] = Agreement.TOKENS

    def __post_init__(self) -> None:
        if self.sinks < 0 or not self.epsilon >= 0:
            raise ValueError(f"sinks and epsilon must be at least 0, got {self.sinks} and {self.epsilon}")

    def __call__(
        self,
        cache: Cache,
        size: int,
        rho: float,
        generator: Generators,
        queries: Float[Tensor, "*heads group b d"] | None = None,
        positions: Int[Tensor, "*heads n"] | None = None,
    ) -> Coreset:
        """Exactly `size` tokens a head. Raises ValueError without queries."""
        check_request(cache, size, rho, generator, self.sinks)
        logits = _expected_logits(check_queries(queries, cache, "expected_attention"), cache.keys)
        sinks = first(position_rank(positions, cache), self.sinks)
        weights = logits.masked_fill(sinks.unsqueeze(-2), -torch.inf).softmax(dim=-1).mean(dim=-2)  # [*heads, n]
        scores = (weights + self.epsilon) * cache.values.norm(dim=-1)
        return top_scores(scores.masked_fill(sinks, torch.inf), size)


def _expected_logits(
    queries: Float[Tensor, "*heads group b d"], keys: Float[Tensor, "*heads n d"]
) -> Float[Tensor, "*heads group n"]:
    mean = queries.mean(dim=-2, keepdim=True)  # [*heads, group, 1, d]
    centred = queries - mean
    covariance = centred.mT @ centred / queries.shape[-2]  # [*heads, group, d, d]
    k = keys.unsqueeze(-3)  # [*heads, 1, n, d]
    return (mean @ k.mT).squeeze(-2) + ((k @ covariance) * k).sum(dim=-1) / 2
