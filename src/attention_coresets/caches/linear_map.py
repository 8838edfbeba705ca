"""The change of basis in which a head's queries and keys are shortest, and the certificate that no other is shorter."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_ACTIVE = 768  # points of each kind that the inner steps look at
_INNER = 40
_OUTER = 40
_POWER = 4  # of the mapped norms that weights are multiplied by: 2 converges for certain, 4 in half the steps
_FLOOR = 1e-12  # of the mean eigenvalue: keeps a flat set of points invertible


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
    sides = [_Points(queries, center), _Points(keys, True)]
    best: LinearMap | None = None
    lower = 0.0
    for _ in range(_OUTER):
        maps, value = _geometric_mean(*(side.moments() for side in sides))
        lower = max(lower, value)
        mapped = [side.mapped(m) for side, m in zip(sides, maps, strict=True)]
        rho = float(mapped[0].norm(dim=-1).max() * mapped[1].norm(dim=-1).max())
        if best is None or rho < best.rho:
            best = LinearMap(mapped[0], mapped[1], sides[0].center, sides[1].center, rho, lower)
        if best.rho <= lower * (1 + tolerance):
            break
        active = [side.active(y) for side, y in zip(sides, mapped, strict=True)]
        for _ in range(_INNER):
            maps, _ = _geometric_mean(*(side.moments() for side in active))
            for side, m in zip(active, maps, strict=True):
                side.reweigh(m)
        for side, part in zip(sides, active, strict=True):
            side.take_back(part)
    assert best is not None
    return LinearMap(best.queries, best.keys, best.query_center, best.key_center, best.rho, lower)


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
        moments = (shifted * self.weights.unsqueeze(-1)).mT @ shifted
        eye = torch.eye(len(moments), dtype=moments.dtype, device=moments.device)
        return moments + eye * (_FLOOR * moments.trace() / len(moments)).clamp_min(torch.finfo(moments.dtype).tiny)

    def mapped(self, m: Tensor) -> Tensor:
        return (self.x - self.center) @ m.mT

    def reweigh(self, m: Tensor) -> None:
        weights = self.weights * self.mapped(m).norm(dim=-1) ** _POWER
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


def _geometric_mean(cq: Tensor, ck: Tensor) -> tuple[tuple[Tensor, Tensor], float]:
    """The maps (M^{-T}, M) that are best for these moments, and the root of tr(B Cq) tr(B^{-1} Ck) they reach."""
    values, vectors = torch.linalg.eigh(cq)
    root = values.clamp_min(torch.finfo(cq.dtype).tiny).sqrt()
    half, inverse = (vectors * root) @ vectors.mT, (vectors / root) @ vectors.mT
    squared, basis = torch.linalg.eigh(half @ ck @ half)
    s = squared.clamp_min(torch.finfo(cq.dtype).tiny).sqrt()  # singular values of Cq^{1/2} Ck^{1/2}
    scale = s.sqrt().unsqueeze(-1)
    return (scale * basis.mT @ inverse, basis.mT @ half / scale), float(s.sum())
