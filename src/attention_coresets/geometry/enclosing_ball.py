"""The smallest ball around points."""

import torch
from jaxtyping import Float
from torch import Tensor


def enclosing_ball(keys: Float[Tensor, "n d"], tolerance: float = 1e-4) -> tuple[Float[Tensor, "d"], float]:
    """Centre and radius of a ball around all keys, the radius within a factor 1 + tolerance of the smallest possible.

    Cost as `ball_weights`.
    """
    center = ball_weights(keys, tolerance) @ keys
    return center, float((keys - center).norm(dim=-1).max())


def ball_weights(keys: Float[Tensor, "n d"], tolerance: float = 1e-4) -> Float[Tensor, "n"]:
    """Weights of the keys whose mean is the centre of that ball.

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
            return p
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
