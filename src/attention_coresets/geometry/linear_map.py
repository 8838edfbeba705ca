"""The change of basis in which a head's queries and keys are shortest, and the certificate that no other is shorter."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.geometry.enclosing_ball import ball_weights

_ACTIVE = 768  # points of each kind that the inner steps look at
_INNER = 40
_OUTER = 40
_POWER = 4.0  # of the mapped norms that weights are multiplied by, halved wherever that lowers the dual
_LEAST_POWER = 0.25
_LEAST_WEIGHT = 1e-12
_FLOOR = (
    1e-8  # of the mean eigenvalue of moments, and of the largest singular value: keeps maps of flat sets invertible
)


@dataclass(frozen=True)
class LinearMap:
    """queries q -> M^{-T} (q - query_center), keys k -> M (k - key_center): inner products of the shifted are kept.

    queries ``[b, d]`` and keys ``[n, d]`` are the mapped ones; rho = max |mapped q| * max |mapped k|, and `lower` <=
    the smallest rho that any map and centre of the keys (and of the queries, where these have one) can give.
    """

    queries: Float[Tensor, "b d"]
    keys: Float[Tensor, "n d"]
    query_center: Float[Tensor, "d"]
    key_center: Float[Tensor, "d"]
    rho: float
    lower: float


def best_linear_map(
    queries: Float[Tensor, "b d"], keys: Float[Tensor, "n d"], *, center: bool = False, tolerance: float = 0.01
) -> LinearMap:
    """Minimise max |M^{-T} (q - q0)| * max |M (k - c)| over invertible M and c, and over q0 too where center is set.

    Without centres this is the factorisation norm gamma_2 of the logit matrix Q K^T. In B = M^T M the logarithm is
    geodesically convex, and its dual is to maximise tr (Cq^{1/2} Ck Cq^{1/2})^{1/2} over weights of the queries and of
    the keys, Cq and Ck being their weighted second moments (covariances where there is a centre): with weights given,
    the best B is the geometric mean of Ck and Cq^{-1}. Weights are multiplied by powers of the mapped norms until
    primal and dual agree within 1 + tolerance, or for _OUTER * _INNER steps, the inner ones on the points of largest
    norm or weight only. What is returned is valid however far that got. Cost O(d^3 + active d^2) a step.
    """
    sides = (_Points(queries, center), _Points(keys, True))
    best, power, lower = _apply(sides), _POWER, 0.0
    kept = [side.weights for side in sides]
    for _ in range(_OUTER):
        found = _apply(sides)
        raised, lower = found.lower > lower, max(lower, found.lower)
        best = min(best, found, key=lambda linear: linear.rho)
        if best.rho <= lower * (1 + tolerance) or power < _LEAST_POWER:
            break
        if raised:
            kept = [side.weights for side in sides]
        else:
            power /= 2
            for side, weights in zip(sides, kept, strict=True):
                side.weights = weights
            found = _apply(sides)
        active = [side.active(y) for side, y in zip(sides, (found.queries, found.keys), strict=True)]
        for _ in range(_INNER):
            for side, m in zip(active, _geometric_mean(*(side.moments() for side in active)), strict=True):
                side.reweigh(m, power)
        for side, part in zip(sides, active, strict=True):
            side.take_back(part)
    if best.rho > lower * (1 + tolerance):  # as happens with few points: a better centre, or no map at all
        moved = [
            _recentred(linear, queries, keys, center) for linear in (best, replace(best, queries=queries, keys=keys))
        ]
        best = min(best, *moved, key=lambda linear: linear.rho)
    return replace(best, lower=min(lower, best.rho))


def _recentred(linear: LinearMap, queries: Tensor, keys: Tensor, center: bool) -> LinearMap:
    """The same map, about the centres of the smallest balls around the mapped points."""
    p = ball_weights(linear.keys)
    w = ball_weights(linear.queries) if center else torch.zeros_like(queries[:, 0])
    moved = linear.queries - w @ linear.queries, linear.keys - p @ linear.keys
    rho = float(moved[0].norm(dim=-1).max() * moved[1].norm(dim=-1).max())
    return LinearMap(*moved, w @ queries, p @ keys, rho, linear.lower)


def _apply(sides: tuple["_Points", "_Points"]) -> LinearMap:
    """The best map for these weights on all points, and the dual value of the weights as `lower`."""
    moments = [side.moments() for side in sides]
    queries, keys = (side.mapped(m) for side, m in zip(sides, _geometric_mean(*moments), strict=True))
    rho = float(queries.norm(dim=-1).max() * keys.norm(dim=-1).max())
    dual = float(torch.linalg.svdvals(_root(moments[0]) @ _root(moments[1])).sum())
    return LinearMap(queries, keys, sides[0].center, sides[1].center, rho, dual)


class _Points:
    """Points with weights, whose moments are about their weighted mean or about the origin."""

    def __init__(self, x: Tensor, centred: bool, weights: Tensor | None = None, chosen: Tensor | None = None) -> None:
        self.x, self.centred, self.chosen = x, centred, chosen
        self.weights = torch.full_like(x[:, 0], 1 / len(x)) if weights is None else weights / weights.sum()
        self.center = x.new_zeros(x.shape[-1])

    def moments(self) -> Tensor:
        if self.centred:
            self.center = self.weights @ self.x
        shifted = self.x - self.center
        return (shifted * self.weights.unsqueeze(-1)).mT @ shifted

    def mapped(self, m: Tensor) -> Tensor:
        return (self.x - self.center) @ m.mT

    def reweigh(self, m: Tensor, power: float) -> None:
        norms = self.mapped(m).norm(dim=-1)
        weights = self.weights * (norms / norms.max().clamp_min(torch.finfo(norms.dtype).tiny)) ** power
        weights = weights.clamp_min(_LEAST_WEIGHT / len(weights))  # so that an overshoot can be taken back
        self.weights = weights / weights.sum()

    def active(self, mapped: Tensor) -> "_Points":
        """Those of largest norm, which steps to come may give weight, and those of largest weight, which have it."""
        norms, count = mapped.norm(dim=-1), min(_ACTIVE // 2, len(self.x))
        chosen = torch.cat([norms.topk(count).indices, self.weights.topk(count).indices]).unique()
        weights = self.weights[chosen]
        violating = norms[chosen] >= mapped.square().sum(dim=-1).matmul(self.weights).sqrt()
        weights = torch.where(violating, weights.clamp_min(1e-4 / len(chosen)), weights)
        return _Points(self.x[chosen], self.centred, weights, chosen)

    def take_back(self, part: "_Points") -> None:
        assert part.chosen is not None
        self.weights = torch.zeros_like(self.weights)
        self.weights[part.chosen] = part.weights


def _geometric_mean(cq: Tensor, ck: Tensor) -> tuple[Tensor, Tensor]:
    """The maps (M^{-T}, M) best for these second moments: B = M^T M is the geometric mean of Ck and Cq^{-1}."""
    values, vectors = torch.linalg.eigh(_floored(cq))
    half, inverse = (vectors * values.sqrt()) @ vectors.mT, (vectors / values.sqrt()) @ vectors.mT
    squared, basis = torch.linalg.eigh(half @ _floored(ck) @ half)
    s = squared.clamp_min(0).sqrt()  # singular values of Cq^{1/2} Ck^{1/2}
    scale = s.clamp_min(_FLOOR * float(s.max())).sqrt().unsqueeze(-1)
    return scale * basis.mT @ inverse, basis.mT @ half / scale


def _floored(moments: Tensor) -> Tensor:
    floor = _FLOOR * float(moments.trace()) / len(moments) or 1.0
    return moments + floor * torch.eye(len(moments), dtype=moments.dtype, device=moments.device)


def _root(moments: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(moments)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.mT
