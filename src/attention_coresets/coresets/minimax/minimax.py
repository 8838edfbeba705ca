"""The minimax refinement: changes tokens and weights of a coreset against the worst queries found for it, in rounds.

This project's own construction (docs/minimax.md). It starts from any coreset of the wanted size, such as the walk's.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, base_weights
from attention_coresets.coresets.base import MODELS, kept_tokens
from attention_coresets.coresets.minimax.exchange import exchange
from attention_coresets.coresets.minimax.heads import Heads, Minimax
from attention_coresets.coresets.minimax.in_step import chosen
from attention_coresets.coresets.minimax.portfolio import best_start
from attention_coresets.coresets.minimax.query_bank import second_moment
from attention_coresets.coresets.minimax.swaps import minimax_swaps
from attention_coresets.coresets.minimax.weights import minimax_weights
from attention_coresets.coresets.randomness import Generators, draw, seeded
from attention_coresets.devices import at_once, in_parts
from attention_coresets.inputs import least_float32
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
    numbers alone, whatever the batch. Heads go one by one on the CPU, and on a GPU as many in step as its memory holds.

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
        Free weights sum to about n, as 1/pi does, and those of a WeightedCache to about the sum of its own.

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
    numbers = draw(generator, heads, 1).squeeze(-1)
    fixed = torch.zeros_like(flat.keys[..., 0])
    if log_weights is not None:
        fixed = log_weights.reshape(heads, -1).to(torch.float64)
    start = coreset.log_weights
    start = fixed.new_zeros(heads, m) if start is None else start.reshape(heads, m).to(torch.float64)
    tokens = coreset.indices.reshape(heads, m)

    def work(part: slice) -> tuple[Tensor, Tensor]:
        some = Heads(flat[part], rho, seeded(numbers[part]), settings)
        given, equal = (tokens[part], start[part]), some.equal.tolist()
        found = given
        if not all(equal):
            found = _free(some, *given) if model == "free" else _fixed(some, *given, fixed[part])
        if not any(equal):
            return found
        weights = _absolute(some, *given) if model == "free" else given[1]
        return chosen(some.equal, given[0], found[0]), chosen(some.equal, weights, found[1])

    # on the CPU one by one, which is as fast and takes less memory
    largest = max(flat.n, settings.random, settings.bank + 2 * settings.restarts) * flat.n
    found = in_parts(work, heads, at_once(largest, flat.keys.device, on_cpu=1))
    tokens, weights = (torch.cat(part).reshape(coreset.indices.shape) for part in zip(*found, strict=True))
    base = base_weights(cache)
    if model == "free" and base is not None:
        weights = weights + base.amax(-1, keepdim=True)  # which `Heads` takes off
    equal = model == "unweighted" and base is None
    return Coreset(tokens, None if equal else weights.to(least_float32(cache.keys.dtype)))


def _free(heads: Heads, tokens: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    s, start = heads.settings, (tokens, log_weights)
    queries = _WIDER * heads.bank.queries  # the random ones: nothing else is in the bank yet
    before = heads.ascend(*start) if s.ascents and s.weights else None
    if s.exchange:
        # no query counts more than another: the mean square only chooses tokens, rounds see to the maximum
        even = torch.full_like(queries[..., 0], 1 / queries.shape[-2])
        base = base_weights(heads.cache)
        moment = second_moment(heads.cache.keys, heads.cache.values, queries, even, base)
        tokens, weights = exchange(*moment, tokens)
        log_weights = weights.log() if base is None else weights.log() + base.gather(-1, tokens)
    if not s.weights:
        return tokens, _absolute(heads, tokens, log_weights)
    tokens, log_weights = _weigh(heads, tokens, log_weights)
    if s.exchange and before is not None and heads.best is not None:
        # at large rho the mean square can mislead: then the start's own tokens
        misled = (heads.best.error == before.error).nonzero().squeeze(-1).tolist()
        if misled:
            tokens[misled], log_weights[misled] = _weigh(heads.only(misled), *(x[misled] for x in start))
    return tokens, log_weights


def _weigh(heads: Heads, tokens: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    for _ in range(heads.settings.rounds):
        if heads.settings.ascents:
            heads.ascend(tokens, log_weights)
        log_weights = minimax_weights(heads.cache, heads.bank, tokens, log_weights)
    tokens, log_weights = _last(heads, tokens, log_weights)
    return tokens, _absolute(heads, tokens, log_weights)


def _fixed(heads: Heads, tokens: Tensor, log_weights: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
    if heads.settings.portfolio:
        tokens = best_start(heads, tokens, fixed)
        log_weights = fixed.gather(-1, tokens)
    for _ in range(heads.settings.rounds):
        if heads.settings.ascents:
            tokens = heads.ascend(tokens, log_weights).tokens  # a pass that did no good is not built on
        kept = torch.zeros_like(fixed, dtype=torch.bool).scatter_(-1, tokens, True)
        # drawn on the CPU: the same numbers on every device
        uniforms = draw(heads.generators, len(fixed), fixed.shape[-1]).to(fixed.device)
        kept = minimax_swaps(heads.cache, heads.bank, kept, fixed, uniforms)
        tokens = kept_tokens(kept, tokens.shape[-1])
        log_weights = fixed.gather(-1, tokens)
    return _last(heads, tokens, log_weights)


def _absolute(heads: Heads, tokens: Tensor, log_weights: Tensor) -> Tensor:
    """Rescales weights: the kept tokens' softmax denominator over the cache's becomes 1 in the mean over the bank.

    No error changes, and other tokens may join with weights of their own.
    """
    queries, base = heads.bank.queries, base_weights(heads.cache)
    whole = queries @ heads.cache.keys.mT
    kept = queries @ heads.cache.take(tokens)[0].mT + log_weights.unsqueeze(-2)
    ratio = kept.logsumexp(-1) - (whole if base is None else whole + base.unsqueeze(-2)).logsumexp(-1)
    return log_weights - (ratio.logsumexp(-1, keepdim=True) - math.log(ratio.shape[-1]))


def _last(heads: Heads, tokens: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the best coresets that ascents saw, these last ones included; these where there were none."""
    if not heads.settings.ascents:
        return tokens, log_weights
    best = heads.ascend(tokens, log_weights)
    return best.tokens, best.log_weights
