"""Finds the weights of the degrees with which the kernel certificate is least (docs/certificates.md)."""

import math

import torch
from torch import Tensor

_ROUNDS = 40  # of the search for alpha
_HEIGHTS = (2.0**-4, 2.0**6)  # limits of b, what the appended 1 is multiplied by, in units of max |u|
_NEAR = (0.7, 1.0, 1.4)  # steps of b in a round


def degree_weights(moments: Tensor, factor: Tensor, output: Tensor | None, rounding: Tensor) -> tuple[Tensor, Tensor]:
    """Finds weights alpha ``[H, J+1]`` of little product (sum_j factor_j^2 / alpha_j) times square, and returns both.

    square ``[H]`` is the largest of y^T (sum_j alpha_j M_j) y over the y allowed. It is bounded by the least over b of
    (1 + output^2 / b^2) lambda_max, with the last row and column times b.

    The dual maximises the concave sum_j factor_j sqrt(<M_j, Y>) over mixtures Y of y y^T. Frank-Wolfe steps on it need
    only the top eigenvector of the weighted sum.
    """
    heads, rows = len(moments), torch.arange(len(moments), device=moments.device)
    stretch = moments.new_ones(heads, 1 if output is None else len(_NEAR), moments.shape[-1])
    lift, b = torch.ones_like(stretch[..., 0]), moments.new_ones(heads)
    mixture = torch.eye(moments.shape[-1], dtype=moments.dtype, device=moments.device) / moments.shape[-1]
    mixture, tiny = mixture.expand(heads, -1, -1), rounding.unsqueeze(-1).clamp_min(1e-300)
    near = moments.new_tensor(_NEAR)
    # any alpha and any b are valid: the best met is kept, whether or not the steps have converged
    best, kept = moments.new_full((heads,), math.inf), (torch.ones_like(factor), rounding)
    for step in range(_ROUNDS):
        if output is not None:
            stretch[..., -1] = (b.unsqueeze(-1) * near).clamp(*_HEIGHTS)
            lift = 1 + (output.unsqueeze(-1) / stretch[..., -1]).square()
        # for a given mixture the best weights are explicit: factor_j / sqrt(<M_j, Y>)
        alpha = (factor / ((moments * mixture.unsqueeze(1)).sum((-2, -1)) + tiny).sqrt()).clamp_min(1e-300)
        total = (alpha[..., None, None] * moments).sum(1)
        values, vectors = torch.linalg.eigh(total.unsqueeze(1) * stretch.unsqueeze(-1) * stretch.unsqueeze(-2))
        # the computed moments are off by `rounding` each, and so is the eigenvalue of their sum
        slack = (alpha.sum(-1) * rounding).unsqueeze(-1) * stretch.amax(-1).square()
        square, at = (lift * (values[..., -1].clamp_min(0) + slack)).min(-1)
        product = (factor.square() / alpha).sum(-1) * square
        better = product < best
        best, b = torch.where(better, product, best), stretch[rows, at, -1]
        kept = (torch.where(better.unsqueeze(-1), alpha, kept[0]), torch.where(better, square, kept[1]))
        y = vectors[rows, at, :, -1] * stretch[rows, at] * lift[rows, at].sqrt().unsqueeze(-1)
        # the step length of Frank-Wolfe that needs no search
        mixture = mixture + 2 / (step + 3) * (y.unsqueeze(-1) * y.unsqueeze(-2) - mixture)
    return kept
