"""Kernel swaps on a long cache: rows of the Gram matrix are computed when they are needed, and no more are held."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attention_coresets.coresets.kernel.kernel_swaps import TIE, kernel_swaps, swapped
from attention_coresets.coresets.kernel.law import kernel_panel
from attention_coresets.coresets.kernel.unit_kernel import DENSE

_NUMBERS = 2**18  # kernel entries computed at once
Features = tuple[Float[Tensor, "H n d"], Float[Tensor, "H n dv"], Float[Tensor, "H n"]]


def swaps_of(features: Features, kept: Bool[Tensor, "H n"], marginals: Float[Tensor, "H n"]) -> Bool[Tensor, "H n"]:
    """Does a pass of `kernel_swaps` towards sum_j pi_j g_j: on the whole matrix where it is worth its memory, by rows
    elsewhere. Arguments and errors as in `swaps_by_rows`."""
    if kept.shape[-1] > DENSE:
        return swaps_by_rows(features, kept, marginals)
    gram = kernel_panel(features, features)
    return kernel_swaps(gram, kept, (gram @ marginals.unsqueeze(-1)).squeeze(-1))


def swaps_by_rows(
    features: Features, kept: Bool[Tensor, "H n"], marginals: Float[Tensor, "H n"]
) -> Bool[Tensor, "H n"]:
    """Does a pass of `kernel_swaps` (kernel_swaps.py) towards t = sum_j pi_j g_j, pi the marginals.

    `features` are those of the balancing kernel, with the tokens' weights (`balancing_features` of law.py). The tokens
    are those of `kernel_swaps` on the whole matrix, but for ties that rounding decides.

    Cost: O(n^2 (d + dv)) a head to begin, and O(n (d + dv)) for each token taken out or put in. Memory O(n (d + dv)) a
    head, and for all heads together a few blocks of 2^18 numbers, or of one row a head where that is more.

    Returns as many kept tokens as before; raises ValueError for sizes that differ between heads.
    """
    sizes = kept.sum(-1)
    if not bool((sizes == sizes[:1]).all()):
        raise ValueError(f"kernel swaps need one size for all heads, got {sizes.tolist()}; give heads one by one")
    x, v, shift = features
    diagonal = (x.square().sum(-1) + 2 * shift).exp() * (v.square().sum(-1) + 1) * 0.5
    target, inner = _sums(features, torch.stack([marginals, kept.to(marginals.dtype)], -1)).unbind(-1)
    inner, kept, tie = inner.clone(), kept.clone(), TIE * (diagonal.amax(-1) + target.abs().amax(-1))
    tokens = kept.nonzero()[:, 1].reshape(len(kept), -1)  # [H, m]
    for some in tokens.split(_block(kept), dim=-1):
        for token, row in zip(some.unbind(-1), _rows(features, some).unbind(-2), strict=True):
            best = swapped(token, row, diagonal, inner, kept, target, tie)
            inner += row if bool((best == token).all()) else _rows(features, best.unsqueeze(-1)).squeeze(-2)
    return kept


def _rows(features: Features, tokens: Tensor) -> Float[Tensor, "H c n"]:
    x, v, shift = features
    keys, values = (y.gather(-2, tokens.unsqueeze(-1).expand(-1, -1, y.shape[-1])) for y in (x, v))
    return kernel_panel((keys, values, shift.gather(-1, tokens)), features)


def _sums(features: Features, weights: Float[Tensor, "H n k"]) -> Float[Tensor, "H n k"]:
    """Computes the Gram matrix times `weights`, some rows at a time."""
    x, v, shift = features
    sums = torch.empty_like(weights)  # at once: small results between large blocks would leave holes in the memory
    block = _block(weights[..., 0])
    for start in range(0, weights.shape[1], block):
        part = slice(start, start + block)
        rows = x[:, part], v[:, part], shift[:, part]
        sums[:, part] = kernel_panel(rows, features) @ weights
    return sums


def _block(x: Tensor) -> int:
    """Returns how many rows to compute at once."""
    return max(1, _NUMBERS // x.numel())
