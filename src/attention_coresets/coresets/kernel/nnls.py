"""Solves non-negative least squares in Gram form, batched: weights of a subset in a reproducing kernel space."""

import torch
from jaxtyping import Float
from torch import Tensor

_STEPS = 100
_TOLERANCE = 1e-13
_SHORT = 0.995  # of the way to the boundary: iterates stay inside it


def nnls(gram: Float[Tensor, "H m m"], target: Float[Tensor, "H m"], ridge: float = 1e-8) -> Float[Tensor, "H m"]:
    """Minimises u^T (G + ridge * mean diagonal) u / 2 - <target, u> over u >= 0, head by head.

    The ridge makes the minimum one point where near-duplicates make G singular: they share their weight. Weights whose
    best value is 0 come out as tiny positive numbers. A head that has converged stays as it is, whatever its batch.

    An interior point method with Mehrotra's predictor and corrector takes some 15 steps however ill-conditioned G is,
    where active sets take hundreds.

    Cost: O(m^3) a step and head.

    Raises ValueError where a step shows that G is not positive semidefinite, and RuntimeError where 100 steps are not
    enough.
    """
    level = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    matrix = gram / level[:, None, None] + ridge * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    size = target.abs().amax(-1).clamp_min(1e-300)
    aim = target / size[:, None]  # the problem in units of the matrix's level and the target's size
    u = torch.ones_like(aim) / matrix.abs().sum(-1).amax(-1, keepdim=True)
    z = torch.ones_like(aim)
    done, failed = torch.zeros_like(size, dtype=torch.bool), torch.zeros_like(size, dtype=torch.int32)
    for _ in range(_STEPS):
        dual = _product(matrix, u) - aim - z
        done = done | (torch.maximum(dual.abs(), u * z).amax(-1) <= _TOLERANCE)
        # both answers at once: for each the host would wait for the device
        finished, refused = torch.stack([done.all(), failed.any()]).tolist()
        if refused:
            raise ValueError("the Gram matrix of the least squares is not positive semidefinite, or holds NaN or Inf")
        if finished:
            return u * (size / level)[:, None]
        du, dz, failed = _direction(matrix, u, z, dual)
        length = torch.where(done, 0.0, (_SHORT * torch.minimum(_reach(u, du), _reach(z, dz))).clamp_max(1.0))
        u, z = u + length[:, None] * du, z + length[:, None] * dz
    raise RuntimeError(f"non-negative least squares did not converge in {_STEPS} steps")


def _direction(matrix: Tensor, u: Tensor, z: Tensor, dual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Finds the Newton step for G u - target = z, u z = mu, and which heads have no such step.

    It is tried with mu = 0 first, which says what mu to take and mends the error of the second order.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix + torch.diag_embed(z / u))

    def solve(products: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the steps after which u z changes by `products`, to first order."""
        du = torch.cholesky_solve((products / u - dual).unsqueeze(-1), factor).squeeze(-1)
        return du, (products - z * du) / u

    du, dz = solve(-u * z)
    length = torch.minimum(_reach(u, du), _reach(z, dz)).clamp_max(1.0).unsqueeze(-1)
    mean = (u * z).mean(-1, keepdim=True)
    ahead = ((u + length * du) * (z + length * dz)).mean(-1, keepdim=True)
    return *solve((ahead / mean) ** 3 * mean - u * z - du * dz), failed


def _reach(x: Tensor, step: Tensor) -> Tensor:
    """Returns how many steps x > 0 can go before an entry is 0."""
    return torch.where(step < 0, -x / step.clamp_max(-1e-300), torch.inf).amin(-1)


def _product(gram: Tensor, u: Tensor) -> Tensor:
    return (gram @ u.unsqueeze(-1)).squeeze(-1)
