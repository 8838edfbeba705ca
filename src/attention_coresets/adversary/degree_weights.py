"""Finds the weights of the degrees with which the kernel certificate is least (docs/certificates.md)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

POWERS = tuple(2.0 + step for step in range(40))
_HEIGHTS = (2.0**-4, 2.0**6)  # limits of b, what the appended 1 is multiplied by, in units of max |u|
_HEIGHT_STEP = 0.1  # of log b, towards where the product is stationary; larger steps swing in some cases


@dataclass(frozen=True)
class DegreeWeights:
    """What a search found.

    - alpha ``[H, J+1]`` and square ``[H]``: the weights, and a bound on the form that they make; the best met
    - mixture ``[H, e, e]``: Y of the last step, of which the forms y y^T are that are nearly the largest
    """

    alpha: Float[Tensor, "H degrees"]
    square: Float[Tensor, "H"]
    mixture: Float[Tensor, "H e e"]


def degree_weights(
    moments: Float[Tensor, "H degrees e e"],
    factor: Float[Tensor, "H degrees"],
    output: Float[Tensor, "H"] | None,
    rounding: Float[Tensor, "H"],
    powers: Sequence[float] = POWERS,
) -> DegreeWeights:
    """Finds weights alpha of little product (sum_j factor_j^2 / alpha_j) times square.

    square is the largest of y^T (sum_j alpha_j M_j) y over the y allowed. It is bounded, for any b, by
    (1 + output^2 / b^2) lambda_max, with the last row and column times b; None leaves `output` and b out.

    The dual maximises the concave sum_j factor_j sqrt(<M_j, Y>) over mixtures Y of y y^T; for a given Y the best alpha
    are explicit. Many eigenvalues are nearly the largest where the coreset is good, and then the best Y is of full
    rank, which steps towards one y y^T each reach slowly. So a step of Frank-Wolfe goes towards A^{p-1} / tr A^{p-1}
    with A = sum_j alpha_j M_j: a p-norm of the eigenvalues stands for their maximum. `powers` are the p of the steps.

    Cost: for each step and head an eigendecomposition of e rows and O(degrees e^2).
    """
    identity = torch.eye(moments.shape[-1], dtype=moments.dtype, device=moments.device)
    mixture, b = (identity / len(identity)).expand(len(moments), -1, -1), torch.ones_like(rounding)
    tiny = rounding.unsqueeze(-1).clamp_min(1e-300)
    # any alpha and any b are valid: the best met is kept, whether or not the steps have converged
    best, alpha_kept, square_kept = torch.full_like(rounding, math.inf), torch.ones_like(factor), rounding
    for step, power in enumerate(powers):
        form = (moments * mixture.unsqueeze(1)).sum((-2, -1)).clamp_min(0)  # below 0 by rounding alone
        alpha = (factor / (form + tiny).sqrt()).clamp_min(1e-300)
        lift, stretch = torch.ones_like(b), torch.ones_like(mixture[..., 0])
        if output is not None:
            lift, stretch[..., -1] = 1 + (output / b).square(), b
        total = (alpha[..., None, None] * moments).sum(1)
        values, vectors = torch.linalg.eigh(total * stretch.unsqueeze(-1) * stretch.unsqueeze(-2))
        # the computed moments are off by `rounding` each, and so is the eigenvalue of their sum
        square = lift * (values[..., -1].clamp_min(0) + alpha.sum(-1) * rounding * stretch.amax(-1).square())
        product = (factor.square() / alpha).sum(-1) * square
        better = product < best
        best = torch.where(better, product, best)
        alpha_kept = torch.where(better.unsqueeze(-1), alpha, alpha_kept)
        square_kept = torch.where(better, square, square_kept)
        shares = (values.clamp_min(0) / values[..., -1:].clamp_min(1e-300)).clamp_max(1) ** (power - 1)
        shares = shares / shares.sum(-1, keepdim=True).clamp_min(1e-300)  # without any moment there is no largest
        if output is not None:
            # the product is stationary in b where the last row has the share output^2 / (output^2 + b^2)
            last = (vectors[..., -1, :].square() * shares).sum(-1).clamp(1e-12, 1 - 1e-12)
            aim = (output.clamp_min(1e-300) * (1 / last - 1).sqrt()).clamp(*_HEIGHTS)
            b = b * (aim / b) ** _HEIGHT_STEP
        y = vectors * (stretch * lift.sqrt().unsqueeze(-1)).unsqueeze(-1)
        mixture = mixture + 2 / (step + 4) * ((y * shares.unsqueeze(-2)) @ y.mT - mixture)
    return DegreeWeights(alpha_kept, square_kept, mixture)
