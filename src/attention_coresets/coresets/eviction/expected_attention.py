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
    """Keeps the tokens that later queries can be expected to attend to, weighed by their values, and the first `sinks`.

    For a query q ~ N(mu, Sigma), log E exp<q, k_i> = <mu, k_i> + <k_i, Sigma k_i> / 2. For each query head, w_i is the
    softmax of these logits over all tokens but the sinks. With its mean over the group,

        score_i = (mean of w_i + epsilon) |v_i|.

    mu and Sigma of a query head are mean and covariance of the queries given, which the caller has moved to the
    positions after the cache (`moved`), as the source rotates them there.

    sinks: first tokens of the text, always kept.
    epsilon: lets values count where no weight is expected.

    Cost: O(group (b + n) d^2) a head.

    Source: Devoto et al., arXiv 2510.00636.
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
