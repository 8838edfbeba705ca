"""Expected attention: the weight a token can expect from Gaussian queries, times the norm of its value."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.coresets.base import Request
from attention_coresets.coresets.eviction.base import Scorer


@dataclass(frozen=True)
class ExpectedAttention(Scorer):
    """Devoto et al., arXiv 2510.00636: for q ~ N(mu, Sigma), log E exp<q,k> = <mu,k> + <k, Sigma k> / 2.

    mu and Sigma of each query head are the mean and covariance (over b) of the queries given, which the caller has
    moved to the positions after the cache (`moved`), as the source rotates them there. The softmax of these logits over
    all tokens but the first `sinks`, its mean over the group, plus `epsilon`, times |v_i|; the sinks are kept. Cost
    O(group (b + n) d^2).
    """

    sinks: int = 4
    epsilon: float = 0.0
    needs_queries: ClassVar[bool] = True
    moved: ClassVar[bool] = True
    needs_positions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.sinks < 0 or not self.epsilon >= 0:
            raise ValueError(f"sinks and epsilon must be at least 0, got {self.sinks} and {self.epsilon}")

    def scores(self, request: Request) -> Tensor:
        logits = _expected_logits(request.asked, request.cache.keys)
        sinks = (request.rank < self.sinks).unsqueeze(-2)
        weights = logits.masked_fill(sinks, -torch.inf).softmax(dim=-1).mean(dim=-2)  # [*heads, n]
        return (weights + self.epsilon) * request.cache.values.norm(dim=-1)


def _expected_logits(
    queries: Float[Tensor, "*heads group b d"], keys: Float[Tensor, "*heads n d"]
) -> Float[Tensor, "*heads group n"]:
    mean = queries.mean(dim=-2, keepdim=True)  # [*heads, group, 1, d]
    centred = queries - mean
    covariance = centred.mT @ centred / queries.shape[-2]  # [*heads, group, d, d]
    k = keys.unsqueeze(-3)  # [*heads, 1, n, d]
    return (mean @ k.mT).squeeze(-2) + ((k @ covariance) * k).sum(dim=-1) / 2
