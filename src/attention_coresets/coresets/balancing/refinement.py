"""Refines a choice of tokens: swaps tokens, and in the free model fits their weights."""

import torch
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, base_weights
from attention_coresets.coresets.base import kept_tokens
from attention_coresets.coresets.kernel.certified import certified
from attention_coresets.coresets.kernel.law import Law, balancing_features, capped_marginals
from attention_coresets.coresets.kernel.refit import kernel_weights
from attention_coresets.coresets.kernel.swaps_by_rows import swaps_of
from attention_coresets.coresets.kernel.unit_kernel import unit_kernel
from attention_coresets.coresets.minimax.minimax import Minimax, minimax
from attention_coresets.registry import check_name

# minimax and its parts, one left out each: the others are there for the ablation
_MINIMAX = {
    "minimax": Minimax(),
    "minimax_random": Minimax(ascents=False),
    "exchange": Minimax(weights=False),
    "minimax_weights": Minimax(exchange=False),
    "portfolio": Minimax(portfolio=True, rounds=3),
}
_CERTIFICATE = {  # and its parts, likewise
    "certificate": {},
    "certificate_weights": {"exchanges": False},
    "certificate_fixed": {"adapts": False},
}
_FREE_ONLY = ("exchange", "minimax_weights", *_CERTIFICATE)
ROUND_SWAPS = "round_swaps"
REFINEMENTS = ("none", "kernel_swaps", ROUND_SWAPS, *_CERTIFICATE, *_MINIMAX)


def check_refinement(model: str, refinement: str) -> None:
    """Raises ValueError for an unknown refinement, naming the nearest, and for one that is of other models."""
    check_name(refinement, REFINEMENTS, "refinement")
    if refinement in _FREE_ONLY and model != "free":
        raise ValueError(f"refinement {refinement} fits weights, which the {model} model fixes; model must be free")
    if refinement == "portfolio" and model == "free":
        raise ValueError("refinement portfolio searches tokens of fixed weights; model must be tilted or unweighted")


def refine(
    cache: Cache,
    coreset: Coreset,
    rho: float,
    measure: Law,
    generators: list[torch.Generator],
    *,
    model: str,
    refinement: str,
) -> Coreset:
    """Refines the coreset of a flat batch of heads, in float64; its size stays.

    none: the tokens as they are.
    round_swaps: as they are too, but each round of the recursion ended with a pass of KT-SWAP in each of its buckets
        (recursion.py), as goodpoints' `compress_kt` has it. Log-weights are those of the recursion.
    kernel_swaps: one pass of KT-SWAP on the balancing kernel. Log-weights in the tilted model are then -log min(1, c
        p*), whatever the recursion had made them.
    minimax: rounds against the worst queries found (minimax/minimax.py), with a generator a head. With fixed weights
        the pass of kernel_swaps comes first.
    minimax_random: minimax on random queries, without ascents.
    exchange: of the free model, minimax without its rounds: what `exchange` gives.
    minimax_weights: of the free model, minimax without a change of tokens.
    certificate: of the free model, exchanges and weights for a small kernel certificate (kernel/certified.py), from the
        tokens of kernel_swaps on.
    certificate_weights, certificate_fixed: certificate without a change of tokens, and for the form of the start alone.
    portfolio: of the tilted and unweighted models, minimax from the best of many starts (minimax/portfolio.py).

    In the free model the tokens come from the tilted law, and get the best non-negative weights for the kernel
    (kernel/refit.py) before any minimax.

    `measure` is the law that the tokens were chosen by. Of a WeightedCache it is the law of one of the tokens that each
    stands for (kernel/law.py), and log-weights are total.
    """
    settings, fixed, base = _MINIMAX.get(refinement), None, base_weights(cache)
    if refinement == "kernel_swaps" or refinement in _CERTIFICATE or (settings and model != "free"):
        log_p = measure.log_p if base is None else measure.log_p + base
        marginals = capped_marginals(log_p, coreset.size)
        fixed = -marginals.clamp_min(1e-300).log()  # of every token
        fixed = fixed if base is None else fixed + base
        coreset = _swapped(cache, coreset, measure, marginals, fixed)
    if model == "free":
        weights = kernel_weights(unit_kernel(cache.keys, cache.values, measure), coreset.indices, base)
        coreset, fixed = Coreset(coreset.indices, weights), None
        if refinement in _CERTIFICATE:
            return certified(cache, coreset, rho, **_CERTIFICATE[refinement])
    elif model == "unweighted" and base is None:
        coreset, fixed = Coreset(coreset.indices), None
    return minimax(cache, coreset, rho, model, fixed, generators, settings) if settings else coreset


def _swapped(cache: Cache, coreset: Coreset, measure: Law, marginals: Tensor, log_weights: Tensor) -> Coreset:
    kept = torch.zeros_like(log_weights, dtype=torch.bool).scatter_(-1, coreset.indices, True)
    features = balancing_features(cache.keys, cache.values, log_weights, measure)
    indices = kept_tokens(swaps_of(features, kept, marginals), coreset.size)
    return Coreset(indices, log_weights.gather(-1, indices))
