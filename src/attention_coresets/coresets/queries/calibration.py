"""Reads off a model's own queries how much each token of its cache matters, and the quadratic error they define."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.attention import Cache, attention_weights
from attention_coresets.coresets.minimax.query_bank import weighted_moment

MARGINALS = ("rms", "max", "smoothed")
_SMOOTH = 0.1  # share of the uniform law in "smoothed"
_LEAST = 1e-30


class Calibration(NamedTuple):
    """Softmax weights of the calibration queries ``[H, b, n]``; values ``[H, n, dv]``, centred, at most 1 in norm."""

    weights: Float[Tensor, "H b n"]
    values: Float[Tensor, "H n dv"]


def calibration(
    cache: Cache, queries: Float[Tensor, "*heads group b d"], rank: Int[Tensor, "*heads n"] | None
) -> Calibration:
    """Computes the softmax weights of a model's queries, for a flat batch of heads in float64.

    `queries` are those of the cache's last b positions. With `rank` None they have been carried to the b positions that
    follow the cache, and see all of it. Otherwise query j of b sees what the model let it see: tokens whose `rank`,
    their place in the text, is at most n - b + j.

    Cost: group b n d multiply-adds and group b n numbers a head.

    Raises ValueError for more queries than tokens.
    """
    weights = attention_weights(queries.to(torch.float64), cache.keys.to(torch.float64), rank).flatten(-3, -2)
    weights = weights.reshape(-1, *weights.shape[-2:])  # [H, group b, n]
    values = cache.values.to(torch.float64).reshape(-1, *cache.values.shape[-2:])
    values = values - values.mean(dim=-2, keepdim=True)
    size = values.norm(dim=-1).amax(dim=-1).clamp_min(1e-300)
    return Calibration(weights, values / size[:, None, None])


def log_sensitivities(found: Calibration, marginals: str) -> Float[Tensor, "H n"]:
    """Computes log p_i, up to a constant, of the sampling law that `marginals` names.

    max: p_i is the largest weight any query gives the token, its sensitivity. It suits independent draws.
    rms: the root mean square over queries, which is how long the token's feature in `gram` is without values. A walk's
        marginals should be proportional to it.
    smoothed: nine parts of rms and one of the uniform law, for queries that calibration has not seen.
    """
    if marginals == "max":
        return found.weights.amax(dim=-2).clamp_min(_LEAST).log()
    rms = found.weights.square().mean(dim=-2).sqrt()
    if marginals == "smoothed":
        rms = (1 - _SMOOTH) * rms / rms.sum(-1, keepdim=True) + _SMOOTH / rms.shape[-1]
    return rms.clamp_min(_LEAST).log()


def gram(found: Calibration) -> Float[Tensor, "H n n"]:
    """Computes the calibration kernel: the mean over queries of T_i(q) T_j(q) (<v_i, v_j> + 1), T = n softmax(q).

    The 1 balances the softmax denominator with the same signs.

    Cost: b n^2 + n^2 dv multiply-adds and 2 n^2 + b n numbers a head.
    """
    weights = found.weights * found.weights.shape[-1]
    moment = (weights.mT @ weights).div_(weights.shape[-2])
    return moment.mul_((found.values @ found.values.mT).add_(1))


def error_moment(found: Calibration) -> tuple[Float[Tensor, "H n n"], Float[Tensor, "H n"]]:
    """Computes G and c: w^T G w is the mean squared error at the queries, linearised, of weights w with c^T w = 1.

    With T = n softmax(q), G_ij = mean_q T_i T_j <v_i - Attn(q), v_j - Attn(q)> and c_i = mean_q T_i. The error is exact
    where the weights sum T to 1 at every query; c^T w = 1 asks it in the mean (minimax/query_bank.py).

    Cost: 2 b n^2 + n^2 dv multiply-adds and 3 n^2 + 4 b n numbers a head.
    """
    outputs = found.weights @ found.values
    weights = found.weights * found.weights.shape[-1]
    even = torch.full_like(weights[..., 0], 1 / weights.shape[-2])
    return weighted_moment(weights, found.values, outputs, even), weights.mean(dim=-2)
