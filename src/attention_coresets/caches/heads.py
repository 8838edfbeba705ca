"""A real attention head: its normalised cache, its own queries, its geometry, and errors at held-out queries."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, attention_error
from attention_coresets.theory import radius, tilt


@dataclass(frozen=True)
class RealHead:
    """One KV head of a model: cache ``[n, d]`` in text order and queries ``[b, d]`` of all its query heads, float64.

    Normalised: keys (k - key_mean) / key_radius, values (v - value_mean) / value_scale, both within the unit ball, and
    queries q * scaling * key_radius, so that attend(q, keys, values) * value_scale + value_mean is exactly the model's
    attention over these n tokens. The queries are of positions after the cache's tokens, the calibration queries of
    earlier ones than the held-out; `group` query heads share the KV head, one head's queries after another's.
    """

    cache: Cache
    calibration: Float[Tensor, "b d"]
    heldout: Float[Tensor, "h d"]
    scaling: float
    key_mean: Float[Tensor, "d"]
    key_radius: float
    value_mean: Float[Tensor, "dv"]
    value_scale: float
    group: int = 1

    @property
    def rho(self) -> float:
        """max |q| over all the head's queries, keys centred at their mean: theory's rho of this head."""
        return float(torch.cat([self.calibration, self.heldout]).norm(dim=-1).max())

    def in_model_units(self) -> tuple[Cache, Float[Tensor, "group b d"]]:
        """Keys and values as the model computes them, and the calibration queries times its scaling, by query head.

        Logits are those of the normalised head but for one constant a query: what depends on the origin of the keys or
        on norms of values is then as its authors defined it.
        """
        keys = self.cache.keys * self.key_radius + self.key_mean
        values = self.cache.values * self.value_scale + self.value_mean
        return Cache(keys, values), self.calibration.unflatten(0, (self.group, -1)) / self.key_radius


def geometry(head: RealHead) -> dict[str, float]:
    """What the bounds and the conjectures say of a head; rho and exponents in nats.

    rho_uncentred, rho_centred (keys centred at their mean), rho_ball (at the centre of their minimum enclosing ball):
    largest query norm times largest key norm times scaling. sigma of the tilt and radius R (1 by the normalisation) at
    rho_centred. total_sensitivity T = sum_i max_q softmax_i(q) over the calibration queries, and its logarithm;
    total_sensitivity_heldout, the same of the held-out ones. sink_weight: mean weight of token 0 at held-out queries.
    effective_rank of the centred keys: participation ratio (sum lambda)^2 / sum lambda^2 of their covariance's
    eigenvalues, between 1 and d.
    """
    keys = head.cache.keys
    _, ball = enclosing_ball(keys)
    largest = float((keys * head.key_radius + head.key_mean).norm(dim=-1).max())
    sensitivity, heldout = sensitivities(head.calibration, keys).sum(), sensitivities(head.heldout, keys).sum()
    eigenvalues = torch.linalg.eigvalsh(keys.mT @ keys)
    return {
        "rho_uncentred": head.rho * largest / head.key_radius,
        "rho_centred": head.rho,
        "rho_ball": head.rho * ball,
        "sigma": float(tilt(keys, head.rho).sigma),
        "radius": float(radius(keys)),
        "total_sensitivity": float(sensitivity),
        "log_total_sensitivity": float(sensitivity.log()),
        "total_sensitivity_heldout": float(heldout),
        "sink_weight": float((head.heldout @ keys.mT).softmax(dim=-1)[:, 0].mean()),
        "effective_rank": float(eigenvalues.sum().square() / eigenvalues.square().sum()),
    }


def heldout_errors(head: RealHead, coreset: Coreset, cache: Cache | None = None) -> dict[str, Float[Tensor, "*heads"]]:
    """Mean, 99th percentile and maximum of the attention error at the head's held-out queries.

    In normalised value units; times head.value_scale they are in the model's own. `cache`: what the coreset was made
    of, if not head.cache itself: the same tokens in another order, or a batch of such, whose leading axes the results
    have.
    """
    cache = head.cache if cache is None else cache
    queries = head.heldout.to(cache.keys).expand(*cache.heads, -1, -1)
    errors = attention_error(queries, cache, coreset)  # [*heads, b]
    return {
        "heldout_mean": errors.mean(dim=-1),
        "heldout_p99": errors.quantile(0.99, dim=-1),
        "heldout_max": errors.amax(dim=-1),
    }


def sensitivities(queries: Float[Tensor, "b d"], keys: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
    """max over these queries of softmax_i(q), token by token; their sum T is between 1 and min(b, n)."""
    return (queries @ keys.mT).softmax(dim=-1).amax(dim=0)


def enclosing_ball(keys: Float[Tensor, "n d"], tolerance: float = 1e-4) -> tuple[Float[Tensor, "d"], float]:
    """Centre and radius of a ball around all keys, the radius within a factor 1 + tolerance of the smallest possible.

    Frank-Wolfe with away steps on the dual, max_p sum p_i |k_i|^2 - |mu_p|^2, whose value certifies the factor
    (Yildirim, Two algorithms for the minimum enclosing ball problem, SIAM J. Optim. 2008). Cost O(n d) a step.
    """
    first = (keys - keys.mean(dim=0)).norm(dim=-1).argmax()
    second = (keys - keys[first]).norm(dim=-1).argmax()
    p = torch.zeros_like(keys[:, 0])
    p[first] += 0.5
    p[second] += 0.5
    while True:
        center = p @ keys
        squared = (keys - center).square().sum(dim=-1)  # [n]
        dual = float(p @ squared)
        if float(squared.max()) <= dual * (1 + tolerance) ** 2:
            return center, float(squared.max().sqrt())
        far, near = squared.argmax(), torch.where(p > 0, squared, torch.inf).argmin()
        gain, loss = float(squared[far]) / dual - 1, 1 - float(squared[near]) / dual
        if gain >= loss:
            step = gain / (2 * (1 + gain))
            p *= 1 - step
            p[far] += step
        else:
            weight = float(p[near])
            step = min(loss / (2 * (1 - loss)) if loss < 1 else torch.inf, weight / (1 - weight))
            p *= 1 + step
            p[near] = max(0.0, float(p[near]) - step)
