"""Solves non-negative least squares in Gram form, batched: weights of a subset in a reproducing kernel space."""

import torch
from jaxtyping import Float
from torch import Tensor

_STEPS = 100
_PREDICTED, _CENTRED = 30, 0.1  # steps with a prediction; after them u z is to fall to this part of its mean
_TOLERANCE, _ROUNDING = 1e-13, 4  # of G u - target, beside so many times what rounding may do to it
_SHORT = 0.995  # of the way to the boundary: iterates stay inside it


def nnls(gram: Float[Tensor, "H m m"], target: Float[Tensor, "H m"], ridge: float = 1e-8) -> Float[Tensor, "H m"]:
    """Minimises u^T (G + ridge * mean diagonal) u / 2 - <target, u> over u >= 0, head by head.

    The ridge makes the minimum one point where near-duplicates make G singular: they share their weight. Weights whose
    best value is 0 come out as tiny positive numbers. A head that has converged stays as it is, whatever its batch.

    An interior point method with Mehrotra's predictor and corrector takes some 15 steps however ill-conditioned G is,
    where active sets take hundreds. The corrector may go in circles; steps without one, after the 30th, do not.

    Cost: O(m^3) a step and head.

    Raises ValueError where a step shows that G is not positive semidefinite, and RuntimeError where 100 steps are not
    enough.
    """
    level = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    matrix = gram / level[:, None, None] + ridge * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    size = target.abs().amax(-1).clamp_min(1e-300)
    aim = target / size[:, None]  # the problem in units of the matrix's level and the target's size
    # u and its multipliers z in one array: a GPU then takes half of the launches
    x = torch.stack([torch.ones_like(aim) / matrix.abs().sum(-1).amax(-1, keepdim=True), torch.ones_like(aim)])
    rounding = _ROUNDING * torch.finfo(matrix.dtype).eps * matrix.abs()
    done, failed = torch.zeros_like(size, dtype=torch.bool), torch.zeros_like(size, dtype=torch.int32)
    for taken in range(_STEPS):
        u, z = x
        dual, products = _product(matrix, u) - aim - z, u * z
        away = torch.baddbmm(torch.maximum(dual.abs(), products).unsqueeze(-1), rounding, u.unsqueeze(-1), alpha=-1)
        done = done | (away.amax((-2, -1)) <= _TOLERANCE)
        # both answers at once: for each the host would wait for the device
        finished, refused = torch.stack([done.all(), failed.any()]).tolist()
        if refused:
            raise ValueError("the Gram matrix of the least squares is not positive semidefinite, or holds NaN or Inf")
        if finished:
            return u * (size / level)[:, None]
        step, failed = _direction(matrix, x, products, dual, predicted=taken < _PREDICTED)
        length = (_SHORT * _reach(x, step)).clamp_max(1.0).masked_fill(done, 0.0)
        x = torch.addcmul(x, length[:, None], step)
    raise RuntimeError(f"non-negative least squares did not converge in {_STEPS} steps")


def _direction(matrix: Tensor, x: Tensor, products: Tensor, dual: Tensor, predicted: bool) -> tuple[Tensor, Tensor]:
    """Finds the Newton step for G u - target = z, u z = mu, and which heads have no such step; products are u z.

    Where it is predicted, it is tried with mu = 0 first, which says what mu to take and mends the error of the second
    order.
    """
    u, z = x
    factor, failed = torch.linalg.cholesky_ex(matrix + torch.diag_embed(z / u))

    def solve(change: Tensor) -> Tensor:
        """Returns the step ``[2, H, m]`` after which u z has changed by `change`, to first order."""
        du = torch.cholesky_solve((change / u - dual).unsqueeze(-1), factor).squeeze(-1)
        return torch.stack([du, torch.addcmul(change, z, du, value=-1) / u])

    mean = products.mean(-1, keepdim=True)
    if not predicted:
        return solve(_CENTRED * mean - products), failed
    step = solve(-products)
    length = _reach(x, step).clamp_max(1.0)[:, None]
    ahead = torch.addcmul(x, length, step).prod(0).mean(-1, keepdim=True)
    return solve((ahead / mean) ** 3 * mean - products - step.prod(0)), failed


def _reach(x: Tensor, step: Tensor) -> Tensor:
    """Returns how many steps x > 0 ``[2, H, m]`` can go before an entry of a head is 0."""
    return (step / x).amin((0, -1)).neg().clamp_min(1e-300).reciprocal()


def _product(gram: Tensor, u: Tensor) -> Tensor:
    return (gram @ u.unsqueeze(-1)).squeeze(-1)
