"""Computes the smallest ellipsoid about points (Loewner-John), by Frank-Wolfe steps with away steps on its dual.

Give the points x_i in R^r weights of sum 1, with mean c and covariance S, and let R^2 = max_i (x_i - c)^T S^-1 (x_i -
c). The ellipsoid of centre c and shape R^2 S just holds the points. In units of the unit ball's, its volume is R^r
det(S)^{1/2}.

Any {(x - a)^T H (x - a) <= 1} that holds the points has tr(H S) <= 1, on average over the weights. So det(H S) <= r^-r,
and its volume is at least r^{r/2} det(S)^{1/2}.

So the geometric mean of the semi-axes found is at most R / sqrt(r) times the least, which is 1 at the weights that
maximise det S.

Source: Khachiyan 1996; away steps: Todd and Yildirim 2007.
"""

import torch
from jaxtyping import Float
from torch import Tensor

_STEPS = 200_000
_LEAST = 1e-15  # a weight below it is 0
_ANEW = 64  # steps between two factorizations: rank-one updates collect rounding errors


def enclosing_weights(points: Float[Tensor, "b r"], tolerance: float) -> Float[Tensor, "b"]:
    """Finds weights with R / sqrt(r) <= 1 + tolerance (module docstring), for points that span r dimensions.

    The search begins with two points along each of r directions (Kumar and Yildirim 2005).

    Cost: O(b r) a step, O(b r^2) every 64 steps.

    Raises RuntimeError should 200,000 steps not suffice.
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
        # towards the farthest point, or away from the nearest that has weight: whichever is further from reach = r + 1,
        # what all points with weight have at the optimum
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
    """Returns M^-1 of M = sum w x x^T, and x^T M^-1 x = (x - c)^T S^-1 (x - c) + 1 of every point ``[b]``."""
    inverse = torch.linalg.inv((lifted * weights.unsqueeze(-1)).mT @ lifted)
    return inverse, ((lifted @ inverse) * lifted).sum(-1)


def _step(reach: float, weight: float, D: int) -> float:
    """Returns the best share beta of a point in (1 - beta) w + beta e_j.

    It is negative for a step away, and at least what takes all the point's weight.
    """
    least = -weight / (1 - weight) if weight < 1 else -0.5
    if reach <= 1 + 1e-12:
        return least
    return max((reach - D) / (D * (reach - 1)), least)


def _first(points: Tensor) -> Tensor:
    """Puts equal weights on the two ends of the points along each of r directions.

    Each direction is orthogonal to the gaps between all ends before it.
    """
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
