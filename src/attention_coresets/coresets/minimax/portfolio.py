"""A portfolio of starts for the minimax swaps: subsets of small mean squared error, the best picked by ascent.

Part of this project's own construction for fixed weights (docs/minimax.md).
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attention_coresets.adversary.ascent import climb
from attention_coresets.adversary.starts import starts
from attention_coresets.attention import Coreset, base_weights
from attention_coresets.coresets.base import kept_tokens
from attention_coresets.coresets.minimax.head import Head
from attention_coresets.coresets.minimax.query_bank import second_moment
from attention_coresets.coresets.minimax.tabu import tabu_search

RADII = (1.25, 1.75, 2.5, 3.5, 5.0)  # of the mean square's queries, in units of rho
_FEW, _MORE = 4, 16  # searches at each radius, then at the best of them
_MOVES, _LOCAL = 8, 2  # of a search from anywhere, and of one near the best, for each token kept
_LEAST = 50  # small subsets are searched as if they had so many
_CLIMBS, _STEPS = 64, 24  # of an ascent that judges
_ROUNDS, _NEAR = 5, 3  # of reweighting; searches in each
_SHARE = 0.1  # of the trace that the worst queries get in the first of these


class _Judged(NamedTuple):
    """A subset ``[n]``, the largest error found for it, and where ascents ended: queries ``[b, d]``, errors ``[b]``."""

    error: float
    kept: Tensor
    queries: Tensor
    errors: Tensor


def best_start(head: Head, tokens: Int[Tensor, "1 m"], fixed: Float[Tensor, "1 n"]) -> Int[Tensor, "1 m"]:
    """Finds tokens of small largest error, for the minimax swaps to begin with: `tokens` or better by ascents.

    Every token has its fixed log-weight. The mean squared error over random queries of norm r is close to a quadratic
    form of the subset (`second_moment`), and a tabu search finds subsets that make it small. Which r is best, 1.25 to 5
    times rho, depends on d and rho: the larger r is, the more do high powers of q count, of which the maximum over the
    ball has more than the mean over its sphere.

    1. Some searches at every radius. An ascent judges each result.
    2. More searches at the radius whose results err least in the mean.
    3. From the best subset, short searches in which that subset's own worst queries count too, for a share of the
       kernel that halves whenever nothing better is found.

    Cost: for each radius 2 b n^2 multiply-adds, b the bank's random queries; 50 searches of 2 m to 8 m moves, O(n)
    each; as many ascents of 64 climbs and 24 steps; and n x n matrices.
    """
    size = tokens.shape[-1]
    given = torch.zeros_like(fixed[0], dtype=torch.bool).scatter_(-1, tokens[0], True)
    judged, best = [_judge(head, given, fixed)], (math.inf, torch.empty(0))
    for radius in RADII:
        kernel = _kernel(head, radius * head.bank.queries, fixed)
        found = [_judge(head, kept, fixed) for kept in _search(head, kernel, _anywhere(head, _FEW, fixed, size))]
        best = min(best, (sum(one.error for one in found), kernel), key=lambda pair: pair[0])
        judged += found
    kernel = best[1]
    judged += [_judge(head, kept, fixed) for kept in _search(head, kernel, _anywhere(head, _MORE, fixed, size))]
    start = _near(head, min(judged, key=lambda one: one.error), kernel, fixed)
    return kept_tokens(start.kept[None], size)


def _near(head: Head, best: _Judged, kernel: Tensor, fixed: Tensor) -> _Judged:
    """Searches about the best subset, its worst queries weighed up; returns the best subset judged."""
    share = _SHARE
    kernel = kernel / _trace(kernel)
    for _ in range(_ROUNDS):
        order = best.errors.argsort(descending=True, stable=True)[:_CLIMBS]
        y = (best.errors[order] / best.error).square().square()
        worst = _kernel(head, best.queries[order][None].to(kernel), fixed, (y / y.sum())[None].to(kernel))
        found = _search(head, kernel + share / _trace(worst) * worst, best.kept.repeat(_NEAR, 1), _LOCAL)
        now = min((_judge(head, kept, fixed) for kept in found), key=lambda one: one.error)
        if now.error < best.error:
            best = now
        else:
            share /= 2
    return best


def _kernel(head: Head, queries: Tensor, fixed: Tensor, y: Tensor | None = None) -> Float[Tensor, "n n"]:
    """Computes w_i w_j G_ij, up to a factor: the mean squared error's form in the subset, linearised; y are weights."""
    base = base_weights(head.cache)
    y = torch.full_like(queries[..., 0], 1 / queries.shape[-2]) if y is None else y
    gram, _ = second_moment(head.cache.keys, head.cache.values, queries, y, base)
    weight = (fixed if base is None else fixed - base)[0]
    weight = (weight - weight.max()).exp()
    return gram[0].mul_(weight).mul_(weight[:, None])


def _trace(kernel: Tensor) -> Tensor:
    return kernel.diagonal().sum().clamp_min(1e-300)


def _anywhere(head: Head, count: int, fixed: Tensor, size: int) -> Bool[Tensor, "S n"]:
    """Draws subsets, each token the more often the less it weighs, which is how the models' marginals are."""
    base = base_weights(head.cache)
    uniforms = torch.rand(count, fixed.shape[-1], dtype=torch.float64, generator=head.generator).to(fixed.device)
    clocks = (-uniforms.clamp_min(1e-300).log()).log() + (fixed if base is None else fixed - base)
    first = clocks.topk(size, dim=-1, largest=False).indices
    return torch.zeros_like(clocks, dtype=torch.bool).scatter_(-1, first, True)


def _search(head: Head, kernel: Tensor, kept: Tensor, each: int = _MOVES) -> Bool[Tensor, "S n"]:
    moves = each * max(_LEAST, int(kept[0].sum()))
    uniforms = torch.rand(len(kept), 2, moves, dtype=torch.float64, generator=head.generator).to(kernel.device)
    return tabu_search(kernel, kept, moves, uniforms)[0]


def _judge(head: Head, kept: Bool[Tensor, "n"], fixed: Tensor) -> _Judged:
    tokens = kept_tokens(kept[None], int(kept.sum()))
    core = Coreset(tokens, fixed.gather(-1, tokens).to(torch.float32))
    first = starts(head.fast, core, head.rho, _CLIMBS, head.generator)
    queries, errors = climb(head.fast, core, head.rho, first, _STEPS)
    return _Judged(float(errors.max()), kept, queries[0], errors[0])
