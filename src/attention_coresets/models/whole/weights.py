"""Fits the weights of kept tokens to the queries of a reading."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.coresets.kernel.nnls import nnls

_MOST = 1e3  # of the pull, at which weights are 1 whatever the queries say


class Form(NamedTuple):
    """The error u^T gram u - 2 target^T u of weights u = scale * w, up to a constant; the diagonal is 1 + pull,
    the pull alone for a token of no error."""

    gram: Float[Tensor, "k k"]
    target: Float[Tensor, "k"]
    scale: Float[Tensor, "k"]


def form(gram: Float[Tensor, "k k"], target: Float[Tensor, "k"], pull: float) -> Form:
    """Returns the form of w^T G w - 2 b^T w + pull * sum_i G_ii (w_i - 1)^2, positive definite.

    `gram` is G on some tokens, `target` b = G 1 there, over all tokens of the cache (statistics.py). So with every
    token kept all weights are 1 up to rounding, whatever the pull, which holds what the queries do not determine.

    G is a sum of float32 numbers. A token that takes nearly all attention has a G_ii below their rounding, and G may
    then not be positive definite: it is given |G_ij|^2 <= G_ii G_jj, and ten times the pull until it is.

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
    return Form(_ridged(unit, pull), target / scale + pull * scale, scale)


def fitted(gram: Float[Tensor, "k k"], target: Float[Tensor, "k"], floor: float, pull: float) -> Float[Tensor, "k"]:
    """Returns the weights w >= floor of least error by `form`.

    The floor keeps a token that was kept for one rare query from being fitted away by the many others.

    Cost: O(k^3), some 15 factorizations.
    """
    unit, aim, scale = form(gram, target, pull)
    least = floor * scale
    above = nnls(unit[None], (aim - unit @ least)[None], ridge=1e-9)[0]
    return floor + above / scale


def _ridged(unit: Tensor, pull: float) -> Tensor:
    return unit + pull * torch.eye(len(unit), dtype=unit.dtype, device=unit.device)


def _definite(unit: Tensor, pull: float) -> bool:
    return not bool(torch.linalg.cholesky_ex(_ridged(unit, pull))[1])
