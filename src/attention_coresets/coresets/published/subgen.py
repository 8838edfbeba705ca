"""SubGen: online clusters of keys and draws by value norm, as one weighted subset of exact size."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attention_coresets.attention import Coreset
from attention_coresets.checks import positive
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.base import Construction, Request
from attention_coresets.coresets.draws.systematic import weighted_draws
from attention_coresets.coresets.published.k_center import squared_distances, standardised
from attention_coresets.coresets.selection import over_heads

_TIE = 1e-9  # of the largest squared norm: distances this close are equal


@dataclass(frozen=True)
class SubGen(Construction):
    """Keeps tokens of every cluster of keys, more often those of large values, with weights that make sums unbiased.

    Tokens arrive in order. One within `delta` of a cluster's first token joins the nearest such cluster; any other
    opens a cluster of its own. With K clusters and n_c tokens in the cluster of token i, its marginal is

        pi_i = min(1, c (1 / (K n_c) + |v_i|^2 / sum_j |v_j|^2)),

    where c makes the marginals sum to `size`. Its log-weight is -log pi_i, which makes numerator and denominator of
    attention unbiased. Tokens are drawn systematically, cluster after cluster and in random order within each, so that
    every cluster gets its share to within one token.

    This adapts the paper, which draws two samples. It estimates the denominator from t uniform samples of each cluster,
    kept in reservoirs, that stand for n_c / t tokens each, and the numerator from independent samples with
    probabilities |v_i|^2 / sum_j |v_j|^2. No log-weighted subset can express the quotient of the two, so here one
    sample without replacement serves both.

    delta: radius of a cluster, in units of the keys' root mean square distance to their mean.

    Cost: O(n K d) a head.

    Source: Zandieh, Han, Mirrokni and Karbasi, arXiv 2402.06082.
    """

    model: ClassVar[str] = "free"
    agreement: ClassVar[Agreement] = Agreement.TOKENS
    delta: float = 1.0

    def __post_init__(self) -> None:
        positive(delta=self.delta)

    def choose(self, request: Request) -> Coreset:
        cache, size = request.cache, request.size

        def of_heads(keys: Tensor, values: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
            cluster = online_clusters(standardised(keys), self.delta)
            norms = values.square().sum(-1)
            shares = norms / norms.sum(-1, keepdim=True).clamp_min(1e-300)
            log_p = (_uniform_in_clusters(cluster) + shares).log()
            # within a cluster at random, clusters in the order they opened
            order = (cluster + uniforms[:, 1]).argsort(dim=-1)
            return weighted_draws(log_p, size, uniforms[:, 0, 0], order)

        return over_heads(request, of_heads, uniforms=(2, cache.n), numbers=4 * cache.n * cache.d)


def online_clusters(points: Tensor, delta: float) -> Tensor:
    """Numbers the cluster 0, 1, ... of each point: ``[H, n]`` for points ``[H, n, e]`` that arrive in order.

    Goes cluster by cluster, which gives the same as point by point. The next representative is the first point that no
    earlier one covers. It claims each later point within delta that is nearer to it than to those before.
    """
    n = points.shape[-2]
    arrival = torch.arange(n, device=points.device)
    squares = points.square().sum(-1)
    tie = _TIE * squares.amax(-1, keepdim=True)
    distance = torch.full_like(points[..., 0], torch.inf)
    cluster = torch.full_like(distance, -1, dtype=torch.int64)
    for k in range(n):
        open_ = cluster < 0
        if not bool(open_.any()):
            break
        first = open_.to(torch.uint8).argmax(-1, keepdim=True)
        found = squared_distances(points, squares, first)
        joins = (found <= delta**2 + tie) & (found < distance - tie) & (arrival > first)
        joins = (joins & open_.any(-1, keepdim=True)).scatter(-1, first, open_.any(-1, keepdim=True))
        cluster, distance = torch.where(joins, k, cluster), torch.where(joins, found, distance)
    return cluster


def _uniform_in_clusters(cluster: Tensor) -> Tensor:
    """Returns 1 / (K n_c) for each token: the chance of a random token of a random cluster."""
    sizes = torch.zeros_like(cluster).scatter_add_(-1, cluster, torch.ones_like(cluster))  # [H, n], 0 past K
    count = (sizes > 0).sum(-1, keepdim=True)
    chosen = count * sizes.gather(-1, cluster)
    return 1 / chosen.to(torch.float32)  # as in committed results; the marginals that follow are float64
