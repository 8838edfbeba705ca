"""Makes low-rank features X of the balancing kernel without its n x n matrix: X X^T stands in for `balancing_gram`."""

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.coresets.kernel.law import Law, balancing_features


def pivoted_cholesky(
    keys: Float[Tensor, "H n d"],
    values: Float[Tensor, "H n dv"],
    log_weights: Float[Tensor, "H n"],
    law: Law,
    uniforms: Float[Tensor, "H rank"],
) -> Float[Tensor, "H n rank"]:
    """Computes a randomly pivoted partial Cholesky factor X of the balancing Gram matrix G.

    Each of the rank columns takes a pivot with probability proportional to the residual's diagonal. So G - X X^T stays
    positive semidefinite, and its trace never grows. A residual of 0 adds columns of 0.

    Cost: O(n rank (rank + d + dv)) a head, n x rank numbers.

    Source: Chen, Epperly, Tropp and Webber 2022.
    """
    x, v, shift = balancing_features(keys, values, log_weights, law)
    heads = torch.arange(len(x), device=x.device)
    features = x.new_zeros(*x.shape[:2], uniforms.shape[-1])
    residual = (x.square().sum(-1) + 2 * shift).exp() * (v.square().sum(-1) + 1) / 2  # [H, n]
    for step, uniform in enumerate(uniforms.unbind(-1)):
        mass = residual.cumsum(dim=-1)
        pivot = torch.searchsorted(mass, uniform.unsqueeze(-1) * mass[:, -1:], right=True).squeeze(-1)
        # rounding, or no residual at all, can point past the end or at a token without mass: the largest serves
        pivot = pivot.clamp_max(x.shape[1] - 1)
        pivot = torch.where(residual[heads, pivot] > 0, pivot, residual.argmax(dim=-1))
        exponent = (x @ x[heads, pivot].unsqueeze(-1)).squeeze(-1) + shift + shift[heads, pivot].unsqueeze(-1)
        column = exponent.exp() * ((v @ v[heads, pivot].unsqueeze(-1)).squeeze(-1) + 1) / 2
        known = features[..., :step]
        column = column - (known @ known[heads, pivot].unsqueeze(-1)).squeeze(-1)
        left = column[heads, pivot]
        scale = torch.where((residual[heads, pivot] > 0) & (left > 0), left.clamp_min(1e-300).rsqrt(), 0.0)
        features[..., step] = column * scale.unsqueeze(-1)
        residual = (residual - features[..., step].square()).clamp_min(0)
        residual[heads, pivot] = 0
    return features


def random_features(
    keys: Float[Tensor, "H n d"],
    values: Float[Tensor, "H n dv"],
    log_weights: Float[Tensor, "H n"],
    law: Law,
    normals: Float[Tensor, "H draws d"],
) -> Float[Tensor, "H n rank"]:
    """Computes positive random features of the exponential, each times (v, 1) / sqrt 2.

    With w ~ N(0, I), the rows of `normals`, exp<x, y> = E exp(<w, x> - |x|^2 / 2) exp(<w, y> - |y|^2 / 2). The values'
    factor (<v_i, v_j> + 1) / 2 is exact. rank = draws (dv + 1). The features are unbiased for G, with a variance that
    grows as exp(|x + y|^2).

    Cost: O(n rank) a head, and O(n draws d).

    Source: Choromanski et al. 2021.
    """
    x, v, shift = balancing_features(keys, values, log_weights, law)
    draws = normals.shape[1]
    height = (shift - 0.5 * x.square().sum(-1)).unsqueeze(-1)
    exponential = (x @ normals.mT + height).exp() / draws**0.5  # [H, n, draws]
    sides = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1) / 2**0.5  # [H, n, dv + 1]
    return (exponential.unsqueeze(-1) * sides.unsqueeze(-2)).flatten(-2)
