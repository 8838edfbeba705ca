"""Non-negative least squares in Gram form, batched: the weights of a chosen subset in a reproducing kernel space."""

import torch
from jaxtyping import Float
from torch import Tensor

_HALVINGS = 12  # of a Newton step, tried at once
_JITTER = 1e-13  # of the mean diagonal: near-duplicates make the Gram matrix singular
_NEAR = 1e-10  # of the largest weight: a weight this small with an upward slope counts as at its bound


def nnls(
    gram: Float[Tensor, "H m m"],
    target: Float[Tensor, "H m"],
    start: Float[Tensor, "H m"] | None = None,
    *,
    tolerance: float = 1e-11,
    iterations: int = 100,
) -> Float[Tensor, "H m"]:
    """Minimise u^T G u / 2 - <target, u> over u >= 0, head by head, from `start` (default 0).

    Projected Newton steps (Bertsekas 1982): solve on the free weights, project, and take the best of a row of halved
    steps. Ends where every head's `kkt_residual` is below `tolerance` or no step gains, after `iterations` at most; a
    head that has ended stays as it is, whatever its batch. The objective never rises above the start's. Cost O(m^3) a
    step and head, 5 to 20 steps.
    """
    u = torch.zeros_like(target) if start is None else start.clamp_min(0)
    done = torch.zeros_like(u[:, 0], dtype=torch.bool)
    for _ in range(iterations):
        slope = _product(gram, u) - target
        done = done | (kkt_residual(gram, target, u) <= tolerance)
        if bool(done.all()):
            break
        trials = _trials(gram, u, slope)  # [H, t, m]
        gains = _gains(gram, slope, u, trials)
        best = gains.max(dim=-1)
        done = done | (best.values <= 0)
        move = trials[torch.arange(len(u), device=u.device), best.indices]
        u = torch.where(done.unsqueeze(-1), u, move)
    return u


def kkt_residual(
    gram: Float[Tensor, "H m m"], target: Float[Tensor, "H m"], u: Float[Tensor, "H m"]
) -> Float[Tensor, "H"]:
    """How far u >= 0 is from optimal: max_i |min(u_i G_ii, slope_i)|, slope = G u - target, over max |target|."""
    slope = _product(gram, u) - target
    scaled = u * gram.diagonal(dim1=-2, dim2=-1)
    return torch.minimum(scaled, slope).abs().amax(-1) / target.abs().amax(-1).clamp_min(1e-300)


def _trials(gram: Tensor, u: Tensor, slope: Tensor) -> Tensor:
    """Projected points along the Newton direction of the free weights, at steps 1, 1/2, 1/4, ..."""
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    near = _NEAR * u.amax(-1, keepdim=True)
    free = ((u > near) | (slope < 0)).to(u.dtype)
    masked = gram * free.unsqueeze(-1) * free.unsqueeze(-2)
    level = diagonal.mean(-1, keepdim=True)
    masked.diagonal(dim1=-2, dim2=-1).add_(torch.where(free > 0, _JITTER * level, level))
    factor = _cholesky(masked, level)
    newton = torch.cholesky_solve((slope * free).unsqueeze(-1), factor).squeeze(-1)
    # a weight at its bound moves by its own diagonal alone, so that each projected direction descends
    step = torch.where(free > 0, newton, slope / diagonal.clamp_min(1e-300))
    lengths = 0.5 ** torch.arange(_HALVINGS, dtype=u.dtype, device=u.device)
    return (u.unsqueeze(-2) - lengths[:, None] * step.unsqueeze(-2)).clamp_min(0)


def _cholesky(matrix: Tensor, level: Tensor) -> Tensor:
    """The Cholesky factor, with a hundred times more ridge each time a head's matrix is not positive definite."""
    ridge = _JITTER
    factor, failed = torch.linalg.cholesky_ex(matrix)
    while bool(failed.any()):
        ridge *= 100
        if ridge > 1:
            raise ValueError("the Gram matrix is not positive semidefinite, or holds NaN or Inf")
        matrix.diagonal(dim1=-2, dim2=-1).add_(ridge * level * (failed > 0).unsqueeze(-1))
        factor, failed = torch.linalg.cholesky_ex(matrix)
    return factor


def _gains(gram: Tensor, slope: Tensor, u: Tensor, trials: Tensor) -> Tensor:
    """By how much each trial lowers the objective, [H, t]; what rounding alone could give counts as nothing."""
    change = trials - u.unsqueeze(-2)
    linear = (change @ slope.unsqueeze(-1)).squeeze(-1)
    gain = -linear - 0.5 * (change * (change @ gram)).sum(-1)
    return torch.where(gain > 1e-15 * linear.abs(), gain, torch.zeros_like(gain))


def _product(gram: Tensor, u: Tensor) -> Tensor:
    return (gram @ u.unsqueeze(-1)).squeeze(-1)
