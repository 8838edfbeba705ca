"""Takes one step of many climbs in the ball |q| <= rho: where to try next, and what to make of it."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.compiled import compiled_module, runs_compiled

# None without numba: the torch lines below do the same in many small operations
compiled = compiled_module("attention_coresets.adversary.steps_compiled")

_MOST_TURN = 3.0  # of the last direction kept in the next
_ON_SPHERE = 1e-6
_TINY = 1e-30


class Climbs(NamedTuple):
    """The best query of each climb, its error and gradient, the direction to go on in, and how far."""

    query: Float[Tensor, "H b d"]
    error: Float[Tensor, "H b"]
    gradient: Float[Tensor, "H b d"]
    direction: Float[Tensor, "H b d"]
    length: Float[Tensor, "H b"]


def begin(query: Float[Tensor, "H b d"], error: Float[Tensor, "H b"], gradient: Tensor, rho: float) -> Climbs:
    """Starts climbs at `query`, straight along the gradient."""
    gradient = _along_ball(query, gradient, rho)
    return Climbs(query.clone(), error.clone(), gradient, gradient.clone(), torch.full_like(error, 0.25 * rho))


def trial(now: Climbs, rho: float) -> Float[Tensor, "H b d"]:
    """Returns the query to try next: along the direction, then back into the ball."""
    if runs_compiled(compiled, now.query):
        out = torch.empty_like(now.query)
        compiled.propose(*rows(now.query, now.direction, now.length), *_scalars(now, rho, _TINY), *rows(out))
        return out
    scale = now.length / now.direction.norm(dim=-1).clamp_min(_TINY)
    return project(torch.addcmul(now.query, scale.unsqueeze(-1), now.direction), rho)


def judged(now: Climbs, query: Tensor, error: Tensor, gradient: Tensor, rho: float) -> Climbs:
    """Returns the climbs after a trial at `query`; overwrites its arguments.

    A gain is taken, turns the direction to the conjugate one (Polak-Ribiere) and lengthens the next step. A loss is not
    taken: the climb starts anew along its gradient, with a shorter step.
    """
    if runs_compiled(compiled, query):
        scalars = _scalars(now, rho, _TINY, _MOST_TURN, _ON_SPHERE)
        compiled.judge(*rows(*now, query, error, gradient), *scalars)
        return now
    gradient = _along_ball(query, gradient, rho)
    gained = error > now.error
    better = gained.unsqueeze(-1)
    # where logits spread far, plain gradients zigzag along the ridge of a hill; part of the last direction, added, goes
    # along it. The turn is never negative: at 0 the climb starts anew from the gradient
    turn = (gradient * (gradient - now.gradient)).sum(-1, keepdim=True)
    turn = (turn / now.gradient.square().sum(-1, keepdim=True).clamp_min(_TINY)).clamp(0, _MOST_TURN)
    return Climbs(
        torch.where(better, query, now.query),
        torch.where(gained, error, now.error),
        torch.where(better, gradient, now.gradient),
        torch.where(better, gradient + turn * now.direction, now.gradient),
        torch.where(gained, (1.6 * now.length).clamp_max(4 * rho), 0.4 * now.length),
    )


def project(query: Float[Tensor, "*heads d"], rho: float) -> Float[Tensor, "*heads d"]:
    """Returns the nearest query of the ball."""
    return query * (rho / query.norm(dim=-1, keepdim=True).clamp_min(rho))


def rows(*tensors: Tensor) -> list[np.ndarray]:
    """Returns the same memory with a row for every head and query, as the compiled functions take it."""
    return [x.view(-1, *x.shape[2:]).numpy() for x in tensors]


def _scalars(now: Climbs, *numbers: float) -> list[np.floating]:
    """Returns numbers in the dtype of the climbs, so that compiled arithmetic stays in it."""
    kind = np.float64 if now.query.dtype == torch.float64 else np.float32
    return [kind(x) for x in numbers]


def _along_ball(query: Tensor, gradient: Tensor, rho: float) -> Tensor:
    """Takes the outward part off the gradient where the query is on the sphere."""
    square, outward = query.square().sum(-1, keepdim=True), (query * gradient).sum(-1, keepdim=True)
    # projection would undo the outward part: a step along it would only be a shorter step
    pressed = (square >= rho**2 * (1 - _ON_SPHERE)) & (outward > 0)
    return torch.where(pressed, gradient - outward / square.clamp_min(_TINY) * query, gradient)
