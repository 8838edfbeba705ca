"""The Gram-Schmidt walk on explicit features: the walk of walk.py for G = X X^T, in O(rank^2 + n rank) a step.

Let x_i be the rows of X, p the pivot, c the ridge, M = c I + sum of x_i x_i^T over the alive tokens but the pivot, and
s the sum of their rows. The direction without the constraint on the sum is u = -X M^-1 x_p, and (c I + X X^T)^-1 1 is
proportional to 1 - X M^-1 s. So nothing is divided by the ridge.

Source: GSWDesign.jl and Harshaw, Savje, Spielman and Zhang keep the same small matrix.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attention_coresets.compiled import compiled_module, runs_compiled
from attention_coresets.coresets.walks.feature_loop import FeatureLoop
from attention_coresets.coresets.walks.walk import each_head

_fast = compiled_module("attention_coresets.coresets.walks.feature_compiled")
feature_steps = _fast.feature_steps if _fast else None  # None without numba: the torch loop does the same
FREEZE = 1e-8  # as walk.FREEZE; features may be far from orthogonal, and equal tokens then part by 2e-10
REFACTOR = 64  # steps between two fresh inverses of M: Sherman-Morrison loses digits


def feature_signs(
    features: Float[Tensor, "H n rank"],
    x: Float[Tensor, "H n"],
    uniforms: Float[Tensor, "H n"],
    ridge: Float[Tensor, "H"],
    exact: bool = True,
    place: Int[Tensor, "H n"] | None = None,
) -> Bool[Tensor, "H n"]:
    """Rounds as `walk_signs` for the Gram matrix X X^T, with `ridge` in absolute units: True where x became +1.

    Pivots, uniforms and choices are those of the Gram form.

    Cost: for one head, n steps of O(rank^2 + n rank) and n / 64 inverses: O(n^2 rank + n rank^2 + n rank^3 / 64) in
    all. Memory of the features and a copy.

    Raises ValueError for a ridge that is not positive.
    """
    if not bool((ridge > 0).all()):
        raise ValueError(f"the ridge of a feature walk must be above 0, got {ridge.min().item()}")
    if place is None:
        place = torch.arange(x.shape[-1], device=x.device).expand(x.shape)
    if not runs_compiled(feature_steps, x):
        return FeatureLoop(features, x, ridge, place, exact, FREEZE).run(uniforms, REFACTOR)
    heads = zip(features, x, uniforms, ridge.tolist(), place, strict=True)
    return each_head(_compiled, [(*head, exact) for head in heads])


def _compiled(features: Tensor, x: Tensor, uniforms: Tensor, ridge: float, place: Tensor, exact: bool) -> Tensor:
    """Walks one head on the CPU, by compiled steps between fresh inverses; kept ``[n]``."""
    assert feature_steps, "the torch loop serves where numba is not installed"
    result, token, done = x.sign(), place.argsort(), 0
    rows, x = features[token], x[token]
    while len(left := (x.abs() < 1 - FREEZE).nonzero().squeeze(-1)):
        rows, x, token = rows[left], x[left], token[left]
        small = rows[1:].mT @ rows[1:]
        small.diagonal().add_(ridge)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(small)).contiguous()  # by rows
        total, ends = rows[1:].sum(0).numpy(), x.numpy()
        limit = min(REFACTOR, len(uniforms) - done)
        if limit == 0:
            raise RuntimeError(f"{len(x)} tokens are still fractional after {done} steps; the features may hold NaN")
        numbers = uniforms.numpy()
        done = feature_steps(rows.numpy(), inverse.numpy(), total, ends, numbers, done, limit, exact, FREEZE)
        result[token] = x.sign()
    return result > 0
