"""A portfolio of starts for the minimax swaps: subsets of small mean squared error, the best picked by ascent.

Part of this project's own construction for fixed weights (docs/minimax.md).
"""

from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attention_coresets.adversary.ascent import climb
from attention_coresets.adversary.starts import starts
from attention_coresets.attention import Coreset, base_weights
from attention_coresets.coresets.base import kept_tokens
from attention_coresets.coresets.minimax.heads import Heads, along
from attention_coresets.coresets.minimax.in_step import lower_of
from attention_coresets.coresets.minimax.query_bank import second_moment
from attention_coresets.coresets.minimax.tabu import tabu_search
from attention_coresets.coresets.randomness import draw

RADII = (1.25, 1.75, 2.5, 3.5, 5.0)  # of the mean square's queries, in units of rho
_FEW, _MORE = 4, 16  # searches at each radius, then at the best of them
_MOVES, _LOCAL = 8, 2  # of a search from anywhere, and of one near the best, for each token kept
_LEAST = 50  # small subsets are searched as if they had so many
_CLIMBS, _STEPS = 64, 24  # of an ascent that judges
_ROUNDS, _NEAR = 5, 3  # of reweighting; searches in each
_SHARE = 0.1  # of the trace that the worst queries get in the first of these


class _Judged(NamedTuple):
    """The largest error found for a subset of each head, the subset, and where ascents ended."""

    error: Float[Tensor, "H"]
    kept: Bool[Tensor, "H n"]
    queries: Float[Tensor, "H b d"]
    errors: Float[Tensor, "H b"]


class _Radius(NamedTuple):
    """The sum of the errors of what was found at a radius, and the kernel of that radius."""

    error: Float[Tensor, "H"]
    kernel: Float[Tensor, "H n n"]


def best_start(heads: Heads, tokens: Int[Tensor, "H m"], fixed: Float[Tensor, "H n"]) -> Int[Tensor, "H m"]:
    """Finds tokens of small largest error, for the minimax swaps to begin with: `tokens` or better by ascents.

    Every token has its fixed log-weight. The mean squared error over random queries of norm r is close to a quadratic
    form of the subset (`second_moment`), and a tabu search finds subsets that make it small. Which r is best, 1.25 to 5
    times rho, depends on d and rho: the larger r is, the more do high powers of q count, of which the maximum over the
    ball has more than the mean over its sphere.

    1. Some searches at every radius. An ascent judges each result.
    2. More searches at the radius whose results err least in the mean.
    3. From the best subset, short searches in which that subset's own worst queries count too, for a share of the
       kernel that halves whenever nothing better is found.

    Cost a head: for each radius 2 b n^2 multiply-adds, b the bank's random queries; 50 searches of 2 m to 8 m moves,
    O(n) each; as many ascents of 64 climbs and 24 steps; and n x n matrices.
    """
    size = tokens.shape[-1]
    best, chosen = (
        _judge(heads, torch.zeros_like(fixed, dtype=torch.bool).scatter_(-1, tokens, True), fixed, size),
        None,
    )
    for radius in RADII:
        kernel = _kernel(heads, radius * heads.bank.queries, fixed)
        found = _judged(heads, _search(heads, kernel, _anywhere(heads, _FEW, fixed, size), size), fixed, size)
        now = _Radius(torch.stack([one.error for one in found]).sum(0), kernel)
        chosen = now if chosen is None else lower_of(chosen, now)
        best = reduce(lower_of, found, best)
    assert chosen is not None, "there are radii"
    found = _search(heads, chosen.kernel, _anywhere(heads, _MORE, fixed, size), size)
    best = reduce(lower_of, _judged(heads, found, fixed, size), best)
    return kept_tokens(_near(heads, best, chosen.kernel, fixed, size).kept, size)


def _near(heads: Heads, best: _Judged, kernel: Tensor, fixed: Tensor, size: int) -> _Judged:
    """Searches about the best subset, its worst queries weighed up; returns the best subset judged."""
    share = torch.full_like(best.error, _SHARE, dtype=kernel.dtype)
    kernel = kernel / _trace(kernel)
    for _ in range(_ROUNDS):
        order = best.errors.argsort(dim=-1, descending=True, stable=True)[:, :_CLIMBS]
        y = (best.errors.gather(-1, order) / best.errors.amax(-1, keepdim=True)).square().square()
        y = (y / y.sum(-1, keepdim=True)).to(kernel)
        worst = _kernel(heads, along(best.queries, order).to(kernel), fixed, y)
        mixed = kernel + share[:, None, None] / _trace(worst) * worst
        near = best.kept.unsqueeze(-2).repeat(1, _NEAR, 1)
        now = reduce(lower_of, _judged(heads, _search(heads, mixed, near, size, _LOCAL), fixed, size))
        share = torch.where(now.error < best.error, share, share / 2)
        best = lower_of(best, now)
    return best


def _kernel(heads: Heads, queries: Tensor, fixed: Tensor, y: Tensor | None = None) -> Float[Tensor, "H n n"]:
    """Computes w_i w_j G_ij, up to a factor: the mean squared error's form in the subset, linearised; y are weights."""
    base = base_weights(heads.cache)
    y = torch.full_like(queries[..., 0], 1 / queries.shape[-2]) if y is None else y
    gram, _ = second_moment(heads.cache.keys, heads.cache.values, queries, y, base)
    weight = fixed if base is None else fixed - base
    weight = (weight - weight.amax(-1, keepdim=True)).exp()
    return gram.mul_(weight.unsqueeze(-2)).mul_(weight.unsqueeze(-1))


def _trace(kernel: Tensor) -> Float[Tensor, "H 1 1"]:
    return kernel.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(1e-300)[:, None, None]


def _anywhere(heads: Heads, count: int, fixed: Tensor, size: int) -> Bool[Tensor, "H S n"]:
    """Draws subsets, each token the more often the less it weighs, which is how the models' marginals are."""
    base, uniforms = base_weights(heads.cache), draw(heads.generators, len(fixed), count, fixed.shape[-1])
    clocks = (-uniforms.to(fixed.device).clamp_min(1e-300).log()).log()
    clocks = clocks + (fixed if base is None else fixed - base).unsqueeze(-2)
    first = clocks.topk(size, dim=-1, largest=False).indices
    return torch.zeros_like(clocks, dtype=torch.bool).scatter_(-1, first, True)


def _search(heads: Heads, kernel: Tensor, kept: Tensor, size: int, each: int = _MOVES) -> Bool[Tensor, "H S n"]:
    moves = each * max(_LEAST, size)
    uniforms = draw(heads.generators, len(kept), kept.shape[1], 2, moves).to(kernel.device)
    return tabu_search(kernel, kept, moves, uniforms)[0]


def _judged(heads: Heads, kept: Bool[Tensor, "H S n"], fixed: Tensor, size: int) -> list[_Judged]:
    return [_judge(heads, each, fixed, size) for each in kept.unbind(1)]


def _judge(heads: Heads, kept: Bool[Tensor, "H n"], fixed: Tensor, size: int) -> _Judged:
    tokens = kept_tokens(kept, size)
    core = Coreset(tokens, fixed.gather(-1, tokens).to(torch.float32))
    first = starts(heads.fast, core, heads.rho, _CLIMBS, heads.generators)
    queries, errors = climb(heads.fast, core, heads.rho, first, _STEPS)
    return _Judged(errors.amax(-1).to(torch.float64), kept, queries, errors)
