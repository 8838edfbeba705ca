"""Fits the weights of kept tokens to the queries of a reading."""

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.coresets.kernel.nnls import nnls

_MOST = 1e3  # of the pull, at which weights are 1 whatever the queries say


def fitted(gram: Float[Tensor, "k k"], target: Float[Tensor, "k"], floor: float, pull: float) -> Float[Tensor, "k"]:
    """Returns the weights w >= floor of least w^T G w - 2 b^T w + pull * sum_i G_ii (w_i - 1)^2.

    `gram` is G on the kept tokens, `target` b = G 1 there, over all tokens of the cache (statistics.py). So with every
    token kept all weights are 1, whatever the pull. The floor keeps a token that was kept for one rare query from being
    fitted away by the many others; the pull holds what the queries do not determine.

    G is a sum of float32 numbers. A token that takes nearly all attention has a G_ii below their rounding, and G may
    then not be positive definite: it is given |G_ij|^2 <= G_ii G_jj, and ten times the pull until it is.

    Cost: O(k^3), some 15 factorizations.

    Raises RuntimeError for NaN or Inf.
    """
    scale = gram.diagonal().clamp_min(1e-12 * gram.diagonal().max().clamp_min(1e-300)).sqrt()
    unit = gram / (scale[:, None] * scale)  # its diagonal is 1, so that the pull is a ridge
    if not _definite(unit, pull):
        unit = unit.clamp(-1, 1).fill_diagonal_(1.0)
        while not _definite(unit, pull):
            pull = 10 * pull
            if pull > _MOST:
                raise RuntimeError("the errors of a head are no quadratic form; its cache or queries may hold NaN")
    unit = _ridged(unit, pull)
    aim = target / scale + pull * scale
    least = floor * scale
    above = nnls(unit[None], (aim - unit @ least)[None], ridge=1e-9)[0]
    return floor + above / scale


def _ridged(unit: Tensor, pull: float) -> Tensor:
    return unit + pull * torch.eye(len(unit), dtype=unit.dtype, device=unit.device)


def _definite(unit: Tensor, pull: float) -> bool:
    return not bool(torch.linalg.cholesky_ex(_ridged(unit, pull))[1])
