"""Measures what share of a budget each head of a model is worth, once for a model, as Attention Matching does.

The cache of a text is compressed evenly; one head after the other is given other sizes, and the loss of answers to
questions on the text tells what they are worth. Then tokens are exchanged between heads while the curves promise a
gain (Zweiger et al., arXiv 2602.16284, algorithm 4).
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Coreset
from attention_coresets.models.serving.caches import ModelCache
from attention_coresets.models.serving.keeping import keep
from attention_coresets.models.serving.prefill import Prefilled
from attention_coresets.models.whole.attention_matching import AttentionMatching
from attention_coresets.models.whole.measured import Measured

RATIOS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
BASE = 1 / 8  # of RATIOS: where the other heads stand


def head_curves(
    prefilled: Prefilled, found: Measured, loss: Callable[[ModelCache], float]
) -> Float[Tensor, "layers kv ratios"]:
    """Returns the loss on a cache with all heads at BASE but one, which has each of RATIOS, less that with all at BASE.

    Values are refitted, as the source has them. Cost: a call of `loss` a head and ratio.
    """
    construct, heads, n = AttentionMatching(budget="even", refit=True), found.reading.heads, found.reading.n
    sizes = [max(round(ratio * n), construct.sinks + 1) for ratio in RATIOS]
    by_ratio = [_compressed(construct, found, size * heads) for size in sizes]
    base, own = by_ratio[RATIOS.index(BASE)]

    def at(coresets: Mapping[int, list[Coreset]], values: Mapping[int, list[Tensor]]) -> float:
        held = {layer: [heads] for layer, heads in coresets.items()}
        return loss(keep(prefilled, held, {layer: [heads] for layer, heads in values.items()}))

    curves, start = torch.zeros(len(base), heads // len(base), len(RATIOS), dtype=torch.float64), at(base, own)
    for row, layer in enumerate(base):
        for head in range(curves.shape[1]):
            for column, (coresets, values) in enumerate(by_ratio):
                if RATIOS[column] != BASE:
                    changed = (_with(x, y, layer, head) for x, y in ((base, coresets), (own, values)))
                    curves[row, head, column] = at(*changed) - start
    return curves


def _compressed(construct: AttentionMatching, found: Measured, count: int) -> tuple[dict, dict]:
    coresets = construct.choose(found, count)
    return coresets, construct.values(found, coresets)


def _with(base: Mapping[int, list], other: Mapping[int, list], layer: int, head: int) -> dict[int, list]:
    """Takes one head from another cache."""
    mine = [*base[layer][:head], other[layer][head], *base[layer][head + 1 :]]
    return {**base, layer: mine}


def exchanged(curves: Float[Tensor, "heads ratios"], ratio: float, step: float = 1 / 256) -> Float[Tensor, "heads"]:
    """Returns the share of a head's tokens that each keeps, `ratio` on average, by exchanges from an even start.

    The head that gains most from one step more takes it from the one that loses least, until none gains. Curves are
    losses at RATIOS, linear in between; no head goes below the first.
    """
    ratios = torch.full((len(curves),), ratio, dtype=torch.float64)
    for _ in range(100 * len(curves)):
        here = _read(curves, ratios)
        gain = (here - _read(curves, ratios + step)).masked_fill(ratios + step > 1 + 1e-9, -torch.inf)
        cost = (_read(curves, ratios - step) - here).masked_fill(ratios - step < RATIOS[0] - 1e-9, torch.inf)
        taker = int(gain.argmax())
        cost[taker] = torch.inf
        giver = int(cost.argmin())
        if float(gain[taker] - cost[giver]) <= 1e-12:
            break
        ratios[taker] += step
        ratios[giver] -= step
    return ratios


def _read(curves: Float[Tensor, "heads ratios"], ratios: Float[Tensor, "heads"]) -> Float[Tensor, "heads"]:
    grid = torch.tensor(RATIOS, dtype=torch.float64)
    ratios = ratios.clamp(grid[0], grid[-1])
    right = torch.searchsorted(grid, ratios.contiguous()).clamp(1, len(grid) - 1)
    part = (ratios - grid[right - 1]) / (grid[right] - grid[right - 1])
    low, high = (curves.gather(1, at[:, None])[:, 0] for at in (right - 1, right))
    return low + part * (high - low)
