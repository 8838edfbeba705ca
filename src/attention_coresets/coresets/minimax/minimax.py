"""The minimax refinement: changes tokens and weights of a coreset against the worst queries found for it, in rounds.

This project's own construction (docs/minimax.md). It starts from any coreset of the wanted size, such as the walk's.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, base_weights
from attention_coresets.coresets.base import MODELS
from attention_coresets.coresets.minimax.exchange import exchange
from attention_coresets.coresets.minimax.head import Head, Minimax
from attention_coresets.coresets.minimax.portfolio import best_start
from attention_coresets.coresets.minimax.query_bank import second_moment
from attention_coresets.coresets.minimax.swaps import minimax_swaps
from attention_coresets.coresets.minimax.weights import minimax_weights
from attention_coresets.coresets.randomness import Generators, draw, seeded
from attention_coresets.registry import check_name
from attention_coresets.theory import check_rho

_DEFAULT = Minimax()
_WIDER = 1.25  # radius of the exchange's queries over rho: found to cover the ball better


def minimax(
    cache: Cache,
    coreset: Coreset,
    rho: float,
    model: str,
    log_weights: Float[Tensor, "*heads n"] | None,
    generator: Generators,
    settings: Minimax = _DEFAULT,
) -> Coreset:
    """Lowers the largest error that ascents find over |q| <= rho, and keeps the coreset's size.

    In the free model `exchange` chooses tokens on random queries; then ascents and `minimax_weights` take turns. In the
    tilted and unweighted models every token has a fixed weight; ascents and `minimax_swaps` take turns, from the
    coreset given or, with `portfolio`, from the best of many (`best_start` of portfolio.py).

    Of all coresets that an ascent judged, the start among them, the one of least error is returned. (Without ascents,
    the last one.) A coreset of every token is returned as it is. A head's result depends on its cache and random
    numbers alone, whatever the batch.

    Cost: a round and head takes 6 steps restarts + 4000 queries in the ascent, of n (d + dv) multiply-adds each, and a
    pass of `minimax_swaps` or `minimax_weights`. The exchange, once, takes 2 random n^2 multiply-adds and holds n x n
    matrices; the rest holds bank x n numbers. At n = 1024, m = 128, on two cores, all takes as long as 15 (d = 8) to 21
    (d = 64) walks of the same cache in the free model, and 32 to 41 with fixed weights (docs/benchmarks.md); the
    portfolio takes two to three times that. It is
    fewer walks where n is larger, for the walk grows as n^3.

    Source: docs/minimax.md.

    Parameters
    ----------
    cache : Cache
    coreset : Coreset
        To begin with.
    rho : float
        Radius of the ball of queries.
    model : str
        "free", "tilted" or "unweighted".
    log_weights : Float[Tensor, "*heads n"], optional
        The fixed log-weight of every token: -log of its marginal in the model (`capped_marginals` of kernel/law.py),
        plus its own in a WeightedCache. None: all 0. The free model does not use them.
    generator : torch.Generator or a sequence of them
    settings : Minimax

    Returns
    -------
    Coreset
        Free weights sum to about n, as 1/pi does; those of a WeightedCache are up to a constant.

    Raises
    ------
    ValueError
        For rho that is not positive, an unknown model, or indices that do not fit the cache.
    """
    rho = check_rho(rho)
    check_name(model, MODELS, "model")
    cache.check_indices(coreset.indices)
    if coreset.size >= cache.n:
        return coreset
    flat = cache.flat().to(torch.float64)
    heads, m = len(flat.keys), coreset.size
    # one number a head seeds all that it draws: how much that is depends on what it finds
    own = seeded(draw(generator, heads, 1).squeeze(-1))
    fixed = torch.zeros_like(flat.keys[..., 0])
    if log_weights is not None:
        fixed = log_weights.reshape(heads, -1).to(torch.float64)
    start = coreset.log_weights
    start = fixed.new_zeros(heads, m) if start is None else start.reshape(heads, m).to(torch.float64)
    tokens = coreset.indices.reshape(heads, m)
    refine = _free if model == "free" else _fixed
    found = []
    for h in range(heads):
        head = Head(flat[h : h + 1], rho, own[h], settings)
        kept, weights = refine(head, tokens[h : h + 1], start[h : h + 1], fixed[h : h + 1])
        found.append((kept, _absolute(head, kept, weights) if model == "free" else weights))
    tokens, weights = (torch.cat(part).reshape(coreset.indices.shape) for part in zip(*found, strict=True))
    equal = model == "unweighted" and base_weights(cache) is None
    return Coreset(tokens, None if equal else weights.to(cache.keys.dtype))


def _free(head: Head, tokens: Tensor, log_weights: Tensor, _unused: Tensor) -> tuple[Tensor, Tensor]:
    s, start = head.settings, (tokens, log_weights)
    if head.equal:
        return start
    queries = _WIDER * head.bank.queries  # the random ones: nothing else is in the bank yet
    if s.ascents and s.weights:
        head.ascend(*start)
    if s.exchange:
        # no query counts more than another: the mean square only chooses tokens, rounds see to the maximum
        even = torch.full_like(queries[..., 0], 1 / queries.shape[-2])
        base = base_weights(head.cache)
        moment = second_moment(head.cache.keys, head.cache.values, queries, even, base)
        tokens, weights = exchange(*moment, tokens)
        log_weights = weights.log() if base is None else weights.log() + base.gather(-1, tokens)
    if not s.weights:
        return tokens, log_weights
    found = _weigh(head, tokens, log_weights)
    # at large rho the mean square can mislead: then the start's own tokens
    return _weigh(head, *start) if s.exchange and found[0] is start[0] else found


def _weigh(head: Head, tokens: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    for _ in range(head.settings.rounds):
        if head.settings.ascents:
            head.ascend(tokens, log_weights)
        log_weights = minimax_weights(head.cache, head.bank, tokens, log_weights)
    return _last(head, tokens, log_weights)


def _fixed(head: Head, tokens: Tensor, log_weights: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
    if head.equal:
        return tokens, log_weights
    if head.settings.portfolio:
        tokens = best_start(head, tokens, fixed)
        log_weights = fixed.gather(-1, tokens)
    for _ in range(head.settings.rounds):
        if head.settings.ascents:
            head.ascend(tokens, log_weights)
            tokens = head.best[1]  # a pass that did no good is not built on
        kept = torch.zeros_like(fixed, dtype=torch.bool).scatter_(-1, tokens, True)
        # drawn on the CPU: the same numbers on every device
        uniforms = torch.rand(fixed.shape, dtype=torch.float64, generator=head.generator).to(fixed.device)
        kept = minimax_swaps(head.cache, head.bank, kept, fixed, uniforms)
        tokens = kept.nonzero()[:, 1].reshape(tokens.shape)
        log_weights = fixed.gather(-1, tokens)
    return _last(head, tokens, log_weights)


def _absolute(head: Head, tokens: Tensor, log_weights: Tensor) -> Tensor:
    """Rescales weights: the kept tokens' softmax denominator over the cache's becomes 1 in the mean over the bank.

    No error changes, and other tokens may join with weights of their own.
    """
    queries, base = head.bank.queries, base_weights(head.cache)
    whole = queries @ head.cache.keys.mT
    kept = queries @ head.cache.take(tokens)[0].mT + log_weights.unsqueeze(-2)
    ratio = kept.logsumexp(-1) - (whole if base is None else whole + base.unsqueeze(-2)).logsumexp(-1)
    return log_weights - (ratio.logsumexp(-1, keepdim=True) - math.log(ratio.shape[-1]))


def _last(head: Head, tokens: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the best coreset that ascents saw, this last one included; this one where there were none."""
    if not head.settings.ascents:
        return tokens, log_weights
    head.ascend(tokens, log_weights)
    return head.best[1:]
