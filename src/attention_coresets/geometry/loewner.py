"""The smallest ellipsoid about points (Loewner-John), by Frank-Wolfe steps with away steps on its dual.

Weights w on the points, sum 1, have a mean c and a covariance S. Every ellipsoid {(x - a)^T H (x - a) <= 1} that holds
the points has sum_i w_i (x_i - a)^T H (x_i - a) <= 1, hence tr(H S) <= 1 and det(H S) <= r^-r: its volume, in units of
the unit ball's, is at least r^{r/2} det(S)^{1/2}. The one of centre c and shape S that just holds the points has R^r
det(S)^{1/2}, R^2 = max_i (x_i - c)^T S^-1 (x_i - c). So R / sqrt(r) bounds the ratio of the semi-axes' geometric means,
whatever w, and is 1 at the w that maximise det S. Khachiyan 1996; away steps: Todd and Yildirim 2007.
"""

import torch
from jaxtyping import Float
from torch import Tensor

_STEPS = 200_000
_LEAST = 1e-15  # a weight below it is 0
_ANEW = 64  # steps between two factorizations: rank-one updates collect rounding errors


def enclosing_weights(points: Float[Tensor, "b r"], tolerance: float) -> Float[Tensor, "b"]:
    """Weights with R / sqrt(r) <= 1 + tolerance (module docstring), for points that span r dimensions.

    Begins with two points along each of r directions (Kumar and Yildirim 2005). Cost O(b r) a step, O(b r^2) every 64
    steps. Raises RuntimeError should 200,000 steps not suffice.
    """
    r = points.shape[1]
    lifted = torch.cat([points, torch.ones_like(points[:, :1])], dim=-1)  # sum w x x^T of these has both c and S
    weights, limit, age = _first(points), 1 + r * (1 + tolerance) ** 2, 0
    inverse, reach = _state(lifted, weights)
    for _ in range(_STEPS):
        far = reach.max(0)
        if float(far.values) <= limit and age == 0:
            return weights
        if float(far.values) <= limit or age == _ANEW:  # once more, without the rounding of the updates
            weights, age = weights / weights.sum(), 0
            inverse, reach = _state(lifted, weights)
            continue
        near = torch.where(weights > 0, reach, torch.inf).min(0)
        j = int(far.indices if far.values + near.values >= 2 * (r + 1) else near.indices)
        beta = _step(float(reach[j]), float(weights[j]), r + 1)
        # inverse of (1 - beta) M + beta x_j x_j^T, and what follows from it
        row = inverse @ lifted[j]
        share = beta / (1 - beta + beta * float(reach[j]))
        reach = (reach - share * (lifted @ row).square()) / (1 - beta)
        inverse = (inverse - share * torch.outer(row, row)) / (1 - beta)
        weights, age = (1 - beta) * weights, age + 1
        weights[j] += beta
        if weights[j] < _LEAST:
            weights[j] = 0.0
    raise RuntimeError(f"no ellipsoid within {tolerance} of the smallest in {_STEPS} steps; raise the tolerance")


def _state(lifted: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """M^-1 of M = sum w x x^T, and x^T M^-1 x = (x - c)^T S^-1 (x - c) + 1 of every point ``[b]``."""
    inverse = torch.linalg.inv((lifted * weights.unsqueeze(-1)).mT @ lifted)
    return inverse, ((lifted @ inverse) * lifted).sum(-1)


def _step(reach: float, weight: float, D: int) -> float:
    """The best share beta of the point in (1 - beta) w + beta e_j, at least what takes all its weight away."""
    least = -weight / (1 - weight) if weight < 1 else -0.5
    if reach <= 1 + 1e-12:
        return least
    return max((reach - D) / (D * (reach - 1)), least)


def _first(points: Tensor) -> Tensor:
    """Equal weights on the two ends of the points along r directions, each orthogonal to all ends before it."""
    left, ends = points - points.mean(dim=0), []
    for _ in range(points.shape[1]):
        along = left @ left[left.norm(dim=-1).argmax()]
        pair = along.argmax(), along.argmin()
        ends += pair
        gap = left[pair[0]] - left[pair[1]]
        gap = gap / gap.norm().clamp_min(1e-300)
        left = left - torch.outer(left @ gap, gap)
    weights = torch.zeros_like(points[:, 0])
    weights[torch.stack(ends)] = 1.0
    return weights / weights.sum()
