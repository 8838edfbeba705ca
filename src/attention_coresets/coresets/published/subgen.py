"""SubGen: online clusters of keys and value-norm sampling, as one weighted subset of exact size."""

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
    """SubGen (Zandieh, Han, Mirrokni and Karbasi, arXiv 2402.06082), adapted to one subset of exactly `size` tokens.

    As published: tokens arrive in order; one within `delta` of a cluster's representative joins the nearest such
    cluster, any other opens its own. The softmax denominator is estimated from t uniform samples of each cluster, each
    standing for n_c / t tokens; the numerator from s independent samples at probabilities |v_i|^2 / sum |v|^2.
    Adapted: the two samples, whose quotient no log-weighted subset can express, become one, drawn without replacement
    at marginals pi_i = min(1, c (1 / (K n_c) + |v_i|^2 / sum |v|^2)), K the number of clusters, which sum to `size`;
    log-weights -log pi make numerator and denominator unbiased. Sampling is systematic, cluster after cluster in random
    order within, so that every cluster gets its share to within one token, where the paper keeps reservoirs.
    `delta` is in units of the keys' root mean square distance to their mean. Cost O(n K d) a head.
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
    """The cluster 0, 1, ... of each point ``[H, n]``, points ``[H, n, e]`` arriving in order.

    Cluster by cluster, which gives the same as point by point: the next representative is the first point that no
    earlier one covers, and claims what comes after it, within delta and nearer to it than to those before.
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
    """1 / (K n_c) for each token: a cluster at random, then a token of it."""
    sizes = torch.zeros_like(cluster).scatter_add_(-1, cluster, torch.ones_like(cluster))  # [H, n], 0 past K
    count = (sizes > 0).sum(-1, keepdim=True)
    return 1 / (count * sizes.gather(-1, cluster))
