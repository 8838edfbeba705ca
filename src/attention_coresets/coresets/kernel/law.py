"""Fixes what balancing needs of a coreset model: the sampling law, the centre of the keys and the kernel scale."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.theory import check_rho, radius, tilt

SCALES = ("auto", "one", "inv_sqrt_d", "rho")


@dataclass(frozen=True)
class Law:
    """Log-probabilities ``[H, n]`` (up to a constant), the keys' centre ``[H, d]`` and the kernel scale a^2 ``[H]``."""

    log_p: Float[Tensor, "H n"]
    center: Float[Tensor, "H d"]
    scale: Float[Tensor, "H"]


def law(
    keys: Float[Tensor, "H n d"], rho: float, model: str, scale: str, log_weights: Float[Tensor, "H n"] | None = None
) -> Law:
    """Finds what a model samples by: the law, the centre mu of the keys, and the kernel scale a^2.

    tilted, free: p* of the tilt (theory.py), its mean, and a^2 = rho / sigma.
    unweighted: the uniform law, the mean key, and a^2 = rho / R, R the largest distance of a key to it.

    `scale` replaces a^2 by 1 ("one"), 1 / sqrt(d) ("inv_sqrt_d") or rho ("rho"); "auto" keeps the model's own. Where
    token i stands for w_i = exp(log_weights_i) equal tokens, log_p is the law of one of these, and mean, sigma and R
    are those of all of them.
    """
    rho = check_rho(rho)
    if model != "unweighted":
        t = tilt(keys, rho, log_weights)
        log_p, center, spread = t.log_p, t.center, t.sigma
        log_p = log_p if log_weights is None else log_p - log_weights
    elif log_weights is None:
        log_p, center, spread = torch.zeros_like(keys[..., 0]), keys.mean(dim=-2), radius(keys)
    else:
        center = (log_weights.softmax(dim=-1).unsqueeze(-2) @ keys).squeeze(-2)
        log_p, spread = torch.zeros_like(log_weights), (keys - center.unsqueeze(-2)).norm(dim=-1).amax(dim=-1)
    fixed = {"one": 1.0, "inv_sqrt_d": keys.shape[-1] ** -0.5, "rho": rho}
    equal = spread <= 1e-12 * center.norm(dim=-1)  # keys that are equal lie as far apart, by rounding
    a2 = rho / torch.where(equal, 1.0, spread) if scale == "auto" else torch.full_like(spread, fixed[scale])
    return Law(log_p, center, a2)


def capped_marginals(log_p: Float[Tensor, "H n"], size: int) -> Float[Tensor, "H n"]:
    """Computes min(1, c p_i) with c such that they sum to `size`: the marginals of a sample of exact size.

    Cost: O(n), and O(n log n) where a head has tokens that are capped.
    """
    log_c = math.log(size) - log_p.logsumexp(dim=-1, keepdim=True) if size else log_p.new_full((1, 1), -math.inf)
    marginals = (log_p + log_c).exp()
    over = (marginals.amax(dim=-1) > 1).nonzero().squeeze(-1)
    # not in place: the search for hard caches takes gradients
    return marginals.index_copy(0, over, _with_caps(log_p[over], size)) if len(over) else marginals


def _with_caps(log_p: Tensor, size: int) -> Tensor:
    n = log_p.shape[-1]
    ordered, order = log_p.sort(dim=-1, descending=True)
    tail = ordered.flip(-1).logcumsumexp(-1).flip(-1)  # log of the sum of p from rank k on
    rank = torch.arange(n, device=log_p.device)
    left = (size - rank).clamp_min(0).to(log_p.dtype).log()  # log (size - k): what k capped tokens leave
    fits = ordered + left - tail <= 0  # with the first k capped, the next one stays below 1
    fits[..., -1] = True  # all but the last capped always fits; rounding must not say otherwise
    capped = fits.to(torch.int8).argmax(dim=-1, keepdim=True)  # the smallest such k
    log_c = (left - tail).gather(-1, capped)
    marginals = torch.where(rank < capped, torch.zeros_like(ordered), (ordered + log_c).clamp_max(0)).exp()
    return torch.empty_like(marginals).scatter_(-1, order, marginals)


def balancing_gram(
    keys: Float[Tensor, "H n d"], values: Float[Tensor, "H n dv"], log_weights: Float[Tensor, "H n"], law: Law
) -> Float[Tensor, "H n n"]:
    """Computes exp(a^2 <k_i - mu, k_j - mu>) (<v_i, v_j> + 1) w_i w_j, scaled so that no diagonal entry is above 1.

    mu and a^2 are those of `law`, and w_i = exp(log_weights_i). Values are in units of the largest value norm. The 1 is
    the constant that balances the softmax denominator. Everything that can overflow stays in the exponent.

    Cost: O(n^2 (d + dv)), one n x n matrix and a temporary.
    """
    features = balancing_features(keys, values, log_weights, law)
    return kernel_panel(features, features)


def balancing_features(
    keys: Float[Tensor, "H n d"], values: Float[Tensor, "H n dv"], log_weights: Float[Tensor, "H n"], law: Law
) -> tuple[Float[Tensor, "H n d"], Float[Tensor, "H n dv"], Float[Tensor, "H n"]]:
    """Computes scaled keys, scaled values and shifts, of which `kernel_panel` makes any part of the Gram matrix."""
    x = (keys - law.center.unsqueeze(-2)) * law.scale.sqrt()[:, None, None]
    v = values / values.norm(dim=-1).amax(dim=-1).clamp_min(1e-300)[:, None, None]
    height = 0.5 * x.square().sum(-1) + log_weights  # [H, n]; half the log of the kernel's weighted diagonal
    shift = log_weights - height.amax(dim=-1, keepdim=True)
    return x, v, shift


def kernel_panel(rows: tuple[Tensor, Tensor, Tensor], columns: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Computes the part ``[H, r, c]`` of the balancing Gram matrix for the features of r and of c tokens."""
    (x, v, shift), (y, w, other) = rows, columns
    panel = (x @ y.mT).add_(shift.unsqueeze(-1)).add_(other.unsqueeze(-2)).exp_()
    return panel.mul_((v @ w.mT).add_(1)).mul_(0.5)
