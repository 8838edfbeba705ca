"""Draws from p*: independent sampling at the tilt's marginals, exact size."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attention_coresets.attention import Cache, Coreset
from attention_coresets.coresets.recursion import balanced_coreset
from attention_coresets.coresets.uniforms import Generators


@dataclass(frozen=True)
class TiltedDraws:
    """Systematic sampling after a random permutation with marginals pi = min(1, c p*), log-weights -log pi.

    O~(d e^{rho sigma} / epsilon^2) tokens. Cost: the tilt and O(n log n).
    """

    def __call__(self, cache: Cache, size: int, rho: float, generator: Generators) -> Coreset:
        """A coreset of exactly `size` tokens a head, for queries of norm at most rho."""
        return balanced_coreset(
            cache,
            size,
            rho,
            generator,
            rule=_systematic,
            model="tilted",
            scale="auto",
            recursion="one_walk",
            needs_gram=False,
        )


def _systematic(gram: Tensor | None, x: Tensor, uniforms: Tensor) -> Tensor:
    """Keep the tokens in whose share of the running total of marginals a point of the grid u, u + 1, ... falls."""
    order = uniforms[:, 1].argsort(dim=-1)
    total = ((x.gather(-1, order) + 1) / 2).cumsum(-1)
    total = total * (total[:, -1:].round() / total[:, -1:])  # the sum is an integer; take away rounding
    before = torch.cat([torch.zeros_like(total[:, :1]), total[:, :-1]], dim=-1)
    shift = uniforms[:, 0, :1]
    kept = (total - shift).ceil() > (before - shift).ceil()
    return kept.new_zeros(kept.shape).scatter_(-1, order, kept)
