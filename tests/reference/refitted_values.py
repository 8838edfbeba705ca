"""Refitted values: keys of a subset, with log-weights and values fitted to attention at sample queries."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, attend
from attention_coresets.checks import positive
from attention_coresets.coresets.base import check_plain, check_size
from attention_coresets.coresets.eviction.base import top_scores
from attention_coresets.coresets.randomness import Generators, draw
from attention_coresets.theory import check_rho

_ITERATIONS = 2000
_LEAST_WEIGHT = 1e-12


@dataclass(frozen=True)
class RefittedAttention:
    """Softmax attention over m keys of the cache with values and log-weights of its own, float64."""

    indices: Int[Tensor, "*heads m"]
    keys: Float[Tensor, "*heads m d"]
    values: Float[Tensor, "*heads m dv"]
    log_weights: Float[Tensor, "*heads m"]

    def attend(self, queries: Float[Tensor, "*heads b d"]) -> Float[Tensor, "*heads b dv"]:
        """The approximation at float64 queries."""
        return attend(queries, self.keys, self.values, self.log_weights)


@dataclass(frozen=True)
class RefittedValues:
    """Attention Matching (Zweiger et al., arXiv 2602.16284) at `samples` queries of the ball.

    Keys: those of a coreset given, else those of largest RMS attention over the samples. Weights w >= 0 minimise
    sum_q (sum_j w_j exp<q,k_j> / Z(q) - 1)^2 (the source divides by the largest exp<q,k> rather than Z). Values then
    minimise sum_q |attention over the kept keys - Attn(q)|^2 + ridge s |V - v|^2, v the tokens' own values and s the
    largest eigenvalue of the least-squares problem. Samples lie at radius rho u^{1/d}, half of them in random
    directions and half along or against centred keys. Cost O(samples (n + size) (d + dv) + samples size^2) a head.
    """

    samples: int = 2048
    ridge: float = 1e-10

    def __post_init__(self) -> None:
        positive(samples=self.samples, ridge=self.ridge)

    def __call__(
        self, cache: Cache, size: int, rho: float, generator: Generators, coreset: Coreset | None = None
    ) -> RefittedAttention:
        """`size` keys a head, or those of `coreset`, which must have that size."""
        check_rho(rho)
        check_size(size)
        check_plain(cache)
        cache = cache.to(torch.float64)
        queries = sample_ball(cache, rho, self.samples, generator)
        weights = (queries @ cache.keys.mT).softmax(dim=-1)  # [*heads, b, n]
        if coreset is None:
            coreset = top_scores(weights.square().mean(dim=-2), size)
        if coreset.size != min(size, cache.n):
            raise ValueError(f"the coreset has {coreset.size} tokens, size asks for {size}")
        keys, values = cache.take(coreset.indices)
        at = coreset.indices.unsqueeze(-2).expand(*weights.shape[:-1], -1)
        log_weights = _nonnegative(weights.gather(-1, at), cache.n / coreset.size).log()
        refitted = _refit(queries, keys, values, log_weights, weights @ cache.values, self.ridge)
        return RefittedAttention(coreset.indices, keys, refitted, log_weights)


def sample_ball(cache: Cache, rho: float, count: int, generator: Generators) -> Float[Tensor, "*heads b d"]:
    """Queries at radius rho u^{1/d}, every second one along or against a random token's centred key."""
    heads, n, d = cache.heads.numel(), cache.n, cache.d
    u = draw(generator, heads, count, d + 2).to(cache.keys)  # [H, b, d + 2]
    normal = torch.special.ndtri(u[..., :d].clamp(1e-12, 1 - 1e-12))
    centred = (cache.keys - cache.keys.mean(dim=-2, keepdim=True)).reshape(heads, n, d)
    lottery = 2 * u[..., d]
    token = ((lottery % 1) * n).long().clamp_max(n - 1)
    aimed = centred.gather(-2, token.unsqueeze(-1).expand(-1, -1, d)) * (2 * lottery.floor() - 1).unsqueeze(-1)
    every_second = (torch.arange(count, device=u.device) % 2 == 0)[:, None]
    direction = torch.where(every_second & (aimed.norm(dim=-1, keepdim=True) > 0), aimed, normal)
    direction = direction / direction.norm(dim=-1, keepdim=True)
    return (rho * u[..., d + 1 :] ** (1 / d) * direction).reshape(*cache.heads, count, d)


def _nonnegative(a: Float[Tensor, "*heads b m"], start: float) -> Float[Tensor, "*heads m"]:
    """Argmin of |a w - 1| over w >= 0, by accelerated projected gradients from w = start."""
    gram, target = a.mT @ a, a.sum(dim=-2)
    step = 1 / torch.linalg.eigvalsh(gram)[..., -1:]
    w = torch.full_like(target, start)
    ahead, momentum = w, 1.0
    for _ in range(_ITERATIONS):
        slope = (gram @ ahead.unsqueeze(-1)).squeeze(-1) - target
        new = (ahead - step * slope).clamp_min(_LEAST_WEIGHT)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new + (momentum - 1) / following * (new - w)
        w, momentum = new, following
    return w


def _refit(queries: Tensor, keys: Tensor, values: Tensor, log_weights: Tensor, target: Tensor, ridge: float) -> Tensor:
    """The values, by ridge regression about the tokens' own, as one QR with the ridge in extra rows."""
    x = (queries @ keys.mT + log_weights.unsqueeze(-2)).softmax(dim=-1)  # [*heads, b, m]
    scale = (ridge * torch.linalg.eigvalsh(x.mT @ x)[..., -1:]).sqrt()  # [*heads, 1]
    rows = torch.diag_embed(scale.expand(log_weights.shape))
    both = torch.cat([x, rows], dim=-2)
    missing = torch.cat([target - x @ values, torch.zeros_like(values)], dim=-2)
    q, r = torch.linalg.qr(both)
    return values + torch.linalg.solve_triangular(r, q.mT @ missing, upper=True)
