"""Fits the weights of kept tokens to the queries of a reading."""

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.coresets.kernel.nnls import nnls


def fitted(gram: Float[Tensor, "k k"], target: Float[Tensor, "k"], floor: float, pull: float) -> Float[Tensor, "k"]:
    """Returns the weights w >= floor of least w^T G w - 2 b^T w + pull * sum_i G_ii (w_i - 1)^2.

    `gram` is G on the kept tokens, `target` b = G 1 there, over all tokens of the cache (statistics.py). So with every
    token kept all weights are 1, whatever the pull. The floor keeps a token that was kept for one rare query from being
    fitted away by the many others; the pull holds what the queries do not determine.

    Cost: O(k^3), some 15 factorizations.
    """
    scale = gram.diagonal().clamp_min(1e-12 * gram.diagonal().max().clamp_min(1e-300)).sqrt()
    unit = gram / (scale[:, None] * scale)  # its diagonal is 1, so that the pull is a ridge
    unit = unit + pull * torch.eye(len(unit), dtype=unit.dtype, device=unit.device)
    aim = target / scale + pull * scale
    least = floor * scale
    above = nnls(unit[None], (aim - unit @ least)[None], ridge=1e-9)[0]
    return floor + above / scale
