"""Writes the difference of the two attentions as one quotient, and bounds its denominator from below.

Take any law p on the tokens. Put x_i = k_i - mean_p(k) and u_i = v_i - mean_p(v). Let W be the cache's weights (1 but
for a WeightedCache) and w the coreset's (0 where dropped), both scaled to sum n, and c_i = W_i - w_i. Then for every
query q

    Attn(q) - Attn'(q) = sum_i c_i e^{<q,x_i>} (u_i - o(q)) / Z(q),   Z(q) = sum_i W_i e^{<q,x_i>},

where o(q) is the coreset's output less mean_p(v). Weights w >= 0 keep o(q) in the hull of the u_i: every ceiling needs
that. docs/certificates.md has the proof.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, base_weights
from attention_coresets.theory import LARGEST_RHO, tilt

LAWS = (0.0, 0.5, 1.0)  # p = p* of the tilt at these shares of rho; 0 is the uniform law, or the weights' own


@dataclass(frozen=True)
class Difference:
    """The difference about one law: x ``[H, n, d]``, u ``[H, n, dv]``, c ``[H, n]`` and p ``[H, n]``, float64.

    Weighted caches also have weights W ``[H, n]`` and log_ratio ``[H, n]``: log(W / p), finite where both underflow.
    """

    x: Float[Tensor, "H n d"]
    u: Float[Tensor, "H n dv"]
    c: Float[Tensor, "H n"]
    p: Float[Tensor, "H n"]
    weights: Float[Tensor, "H n"] | None = None
    log_ratio: Float[Tensor, "H n"] | None = None

    @property
    def reach(self) -> Float[Tensor, "H"]:
        """Returns max |x_i|."""
        return self.x.norm(dim=-1).amax(-1)

    @property
    def output_radius(self) -> Float[Tensor, "H"]:
        """Returns max |u_i|, which |o(q)| and |Attn(q) - mean_p(v)| never exceed."""
        return self.u.norm(dim=-1).amax(-1)

    def log_floor(self, low: Tensor, high: Tensor) -> Float[Tensor, "H k"]:
        """Returns the log of a floor under Z(q) / n for low_k <= |q| <= high_k; both ``[k]``.

        Let H = sum p_i log(W_i / p_i), the entropy of p where W = 1, and h_i = log(W_i / p_i) - H. Then

            Z = e^H sum p_i e^{t_i},   t_i = <q,x_i> + h_i of mean 0 under p,
            e^t >= 1 + t + g t^2 for t >= -T,   g = (e^{-T} - 1 + T) / T^2,
            sum p_i t_i^2 >= lambda_min |q|^2 - 2 |q| |sum p_i h_i x_i| + sum p_i h_i^2,

        with lambda_min the least eigenvalue of the keys' covariance under p.
        """
        log_ratio = -self.p.clamp_min(1e-300).log() if self.log_ratio is None else self.log_ratio
        entropy = (self.p * log_ratio).sum(-1, keepdim=True)
        h = log_ratio - entropy
        weighted = self.x * self.p.unsqueeze(-1)
        # a GPU would solve a batch of small eigenproblems one after another
        least = torch.linalg.eigvalsh((weighted.mT @ self.x).cpu())[:, :1].clamp_min(0).to(self.x.device)  # [H, 1]
        skew = (h.unsqueeze(1) @ weighted).squeeze(1).norm(dim=-1, keepdim=True)
        square = least * low.square() - 2 * high * skew + (self.p * h.square()).sum(-1, keepdim=True)
        far = high * self.x.norm(dim=-1, keepdim=True) + h.abs().unsqueeze(-1)  # [H, n, k]
        t = far.amax(1).clamp_min(1e-3)  # g decreases in T
        g = (torch.expm1(-t) + t) / t.square()
        return entropy - math.log(self.p.shape[-1]) + (g * square.clamp_min(0)).log1p()


def differences(cache: Cache, coreset: Coreset, rho: float) -> Iterator[Difference]:
    """Yields the difference about each law of LAWS, heads flattened.

    Every law is valid; which is best is not known before.
    """
    cache.check_indices(coreset.indices)
    keys, values = (x.reshape(-1, *x.shape[-2:]).to(torch.float64) for x in (cache.keys, cache.values))
    log_w = base_weights(cache)
    if log_w is not None:
        log_w = log_w.reshape(keys.shape[:-1]).to(keys).log_softmax(dim=-1) + math.log(cache.n)
    c = _signed_weights(cache, coreset, log_w).to(keys.device)
    spread = (keys - keys.mean(dim=-2, keepdim=True)).norm(dim=-1).max()
    steepest = 100 / float(spread.clamp_min(1e-300))  # beyond, nothing is certified but by the values
    for share in LAWS:
        near = max(share * rho, 1 / LARGEST_RHO) if share else 0.0  # the least rho that a tilt takes
        p, log_p = _law(keys, min(near, steepest), log_w)
        p = p / p.sum(-1, keepdim=True)
        x, u = (y - p.unsqueeze(1) @ y for y in (keys, values))
        if log_w is None:
            yield Difference(x, u, c, p)
        else:
            yield Difference(x, u, c, p, log_w.exp(), log_w - log_p)


def _law(keys: Tensor, rho: float, log_w: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns p* of the tilt at this radius and its logarithm; at 0 the weights themselves, scaled to sum 1."""
    n = keys.shape[-2]
    if rho > 0:
        tilted = tilt(keys, rho, log_w)
        return tilted.p, tilted.log_p
    log_p = torch.full_like(keys[..., 0], -math.log(n)) if log_w is None else log_w - math.log(n)
    return torch.full_like(log_p, 1 / n) if log_w is None else log_p.exp(), log_p


def _signed_weights(cache: Cache, coreset: Coreset, log_w: Tensor | None) -> Tensor:
    """Returns c ``[H, n]``: the weights of the cache less those of the coreset, both of sum n."""
    indices = coreset.indices.reshape(-1, coreset.size)
    log_weights = torch.zeros_like(indices) if coreset.log_weights is None else coreset.log_weights
    weights = cache.n * log_weights.to(torch.float64).reshape(indices.shape).softmax(dim=-1)
    shape = (len(indices), cache.n)
    full = torch.ones(shape, dtype=torch.float64, device=indices.device) if log_w is None else log_w.exp()
    return full.scatter_add_(-1, indices, -weights)
