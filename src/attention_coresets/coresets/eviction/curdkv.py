"""CurDKV: leverage of the keys times leverage of the values."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.checks import not_negative, one_of, positive
from attention_coresets.coresets.base import Request
from attention_coresets.coresets.eviction.base import Scorer, in_order
from attention_coresets.coresets.randomness import Generators, draw

LEVERAGES = ("local", "projected", "exact")


@dataclass(frozen=True)
class CurDKV(Scorer):
    """Keeps the rows that a CUR decomposition of keys and values would pick, and the first `sinks` tokens.

    score_i = l_i(K) l_i(V), where l_i(X) is the leverage of row x_i of X. Rows are taken about the origin of the keys
    and values given.

    leverage: "local", kvpress's default: |x_i|^2 over its sum in the window of consecutive places that i is in.
        "projected", the paper's approximation: |x_i G|^2 with a Gaussian matrix G. "exact", the statistical leverage
        <x_i, (X^T X)^+ x_i>.
    sinks: first tokens of the text, always kept.
    window: places in a window of "local".
    rank: columns of G in "projected".

    Cost: O(n d) a head; "projected" O(n d rank), "exact" O(n d^2).

    Source: Sengupta et al., arXiv 2509.15038.
    """

    leverage: str = "local"
    sinks: int = 4
    window: int = 16
    rank: int = 20
    needs_positions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        one_of("leverage", self.leverage, LEVERAGES)
        positive(window=self.window, rank=self.rank)
        not_negative(sinks=self.sinks)

    def scores(self, request: Request) -> Tensor:
        cache, rank, generator = request.cache, request.rank, request.generator
        return self._leverage(cache.keys, rank, generator) * self._leverage(cache.values, rank, generator)

    def _leverage(self, x: Float[Tensor, "*heads n d"], rank: Tensor, generator: Generators) -> Tensor:
        if self.leverage == "exact":
            u, s, _ = torch.linalg.svd(x, full_matrices=False)
            spans = s > s.amax(dim=-1, keepdim=True) * max(x.shape[-2:]) * torch.finfo(x.dtype).eps
            return (u.square() * spans.unsqueeze(-2)).sum(dim=-1)
        if self.leverage == "projected":
            return (x @ _gaussian(generator, x, self.rank)).square().sum(dim=-1)
        return _over_window_sums(x.square().sum(dim=-1), rank, self.window)


def _gaussian(generator: Generators, x: Tensor, rank: int) -> Tensor:
    """Draws normal columns ``[*heads, d, rank]`` of variance 1 / rank, by Box and Muller from uniforms."""
    u = draw(generator, x.shape[:-2].numel(), 2, x.shape[-1], rank)
    normal = (-2 * torch.log1p(-u[:, 0])).sqrt() * torch.cos(2 * math.pi * u[:, 1])
    return (normal / math.sqrt(rank)).to(x).reshape(*x.shape[:-2], x.shape[-1], rank)


def _over_window_sums(x: Tensor, rank: Tensor, window: int) -> Tensor:
    """Divides each entry by the sum of its window: places 0 to window - 1, window to 2 window - 1, ..."""
    n = x.shape[-1]
    padded = torch.nn.functional.pad(in_order(x, rank), (0, -n % window)).unflatten(-1, (-1, window))
    shares = padded / padded.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    return shares.flatten(-2)[..., :n].gather(-1, rank)
