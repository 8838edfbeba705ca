"""What the certificates share: the difference of the two attentions as one quotient, and a floor under its denominator.

About a law p on the tokens put x_i = k_i - mean_p(k), u_i = v_i - mean_p(v), c_i = 1 - w_i, w the coreset's weights
scaled to sum n (0 where dropped). Whatever q,

    Attn(q) - Attn'(q) = sum_i c_i e^{<q,x_i>} (u_i - o(q)) / Z(q),   Z(q) = sum_i e^{<q,x_i>},

o(q) the coreset's output less mean_p(v). Weights w >= 0 keep o(q) in the hull of the u_i: every ceiling needs that.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Cache, Coreset
from attention_coresets.theory import tilt

LAWS = (0.0, 0.5, 1.0)  # p = p* of the tilt at these shares of rho; 0 is the uniform law


@dataclass(frozen=True)
class Difference:
    """x ``[H, n, d]``, u ``[H, n, dv]``, c ``[H, n]`` and p ``[H, n]`` of the module's statement, float64."""

    x: Float[Tensor, "H n d"]
    u: Float[Tensor, "H n dv"]
    c: Float[Tensor, "H n"]
    p: Float[Tensor, "H n"]

    @property
    def reach(self) -> Float[Tensor, "H"]:
        """max |x_i|."""
        return self.x.norm(dim=-1).amax(-1)

    @property
    def output_radius(self) -> Float[Tensor, "H"]:
        """max |u_i|, which |o(q)| and |Attn(q) - mean_p(v)| never exceed."""
        return self.u.norm(dim=-1).amax(-1)

    def log_floor(self, low: Tensor, high: Tensor) -> Float[Tensor, "H k"]:
        """log of a floor under Z(q) / n for low_k <= |q| <= high_k; both ``[k]``.

        With h_i = -log p_i - H(p), Z = e^H sum p_i e^{t_i}, t_i = <q,x_i> + h_i of mean 0 under p. e^t is at least
        1 + t + g t^2 for t >= -T, g = (e^{-T} - 1 + T) / T^2, and sum p_i t_i^2 at least
        lambda_min |q|^2 - 2 |q| |sum p_i h_i x_i| + sum p_i h_i^2, lambda_min of the keys' covariance under p.
        """
        minus_log = -self.p.clamp_min(1e-300).log()
        entropy = (self.p * minus_log).sum(-1, keepdim=True)
        h = minus_log - entropy
        weighted = self.x * self.p.unsqueeze(-1)
        least = torch.linalg.eigvalsh(weighted.mT @ self.x)[:, :1].clamp_min(0)  # [H, 1]
        skew = (h.unsqueeze(1) @ weighted).squeeze(1).norm(dim=-1, keepdim=True)
        square = least * low.square() - 2 * high * skew + (self.p * h.square()).sum(-1, keepdim=True)
        far = high * self.x.norm(dim=-1, keepdim=True) + h.abs().unsqueeze(-1)  # [H, n, k]
        t = far.amax(1).clamp_min(1e-3)  # g decreases in T
        g = (torch.expm1(-t) + t) / t.square()
        return entropy - torch.tensor(self.p.shape[-1]).log() + (g * square.clamp_min(0)).log1p()


def differences(cache: Cache, coreset: Coreset, rho: float) -> Iterator[Difference]:
    """The difference about each law of LAWS, heads flattened. Any law is valid; the best one is not known before."""
    cache.check_indices(coreset.indices)
    keys, values = (x.reshape(-1, *x.shape[-2:]).to(torch.float64) for x in (cache.keys, cache.values))
    c = _signed_weights(cache, coreset).to(keys.device)
    spread = (keys - keys.mean(dim=-2, keepdim=True)).norm(dim=-1).max()
    steepest = 100 / float(spread.clamp_min(1e-300))  # beyond, nothing is certified but by the values
    for share in LAWS:
        p = torch.full_like(c, 1 / cache.n) if share == 0 else tilt(keys, min(share * rho, steepest)).p
        p = p / p.sum(-1, keepdim=True)
        x, u = (y - p.unsqueeze(1) @ y for y in (keys, values))
        yield Difference(x, u, c, p)


def _signed_weights(cache: Cache, coreset: Coreset) -> Tensor:
    indices = coreset.indices.reshape(-1, coreset.size)
    log_weights = torch.zeros_like(indices) if coreset.log_weights is None else coreset.log_weights
    weights = cache.n * log_weights.to(torch.float64).reshape(indices.shape).softmax(dim=-1)
    ones = torch.ones(len(indices), cache.n, dtype=torch.float64, device=indices.device)
    return ones.scatter_add_(-1, indices, -weights)
