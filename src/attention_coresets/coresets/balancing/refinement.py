"""What may follow a choice of tokens: swaps of tokens, and in the free model the fit of their weights."""

import torch
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, base_weights
from attention_coresets.coresets.base import kept_tokens
from attention_coresets.coresets.kernel.kernel_swaps import kernel_swaps
from attention_coresets.coresets.kernel.law import Law, balancing_gram, capped_marginals
from attention_coresets.coresets.kernel.refit import kernel_weights
from attention_coresets.coresets.kernel.unit_kernel import unit_kernel
from attention_coresets.coresets.minimax.minimax import Minimax, minimax
from attention_coresets.registry import check_name

# minimax and its parts, one left out each: the others are there for the ablation
_MINIMAX = {
    "minimax": Minimax(),
    "minimax_random": Minimax(ascents=False),
    "exchange": Minimax(weights=False),
    "minimax_weights": Minimax(exchange=False),
}
_FREE_ONLY = ("exchange", "minimax_weights")
REFINEMENTS = ("none", "kernel_swaps", *_MINIMAX)


def check_refinement(model: str, refinement: str) -> None:
    """ValueError, naming the nearest, for an unknown refinement, and for one that the model leaves nothing to do."""
    check_name(refinement, REFINEMENTS, "refinement")
    if refinement in _FREE_ONLY and model != "free":
        raise ValueError(f"refinement {refinement} fits weights, which the {model} model fixes; model must be free")


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
    """The coreset of a flat batch of heads after `refinement`, in float64, its size unchanged; `measure` is what its
    tokens were chosen by.

    none: the tokens as they are. kernel_swaps: one pass of KT-SWAP on the balancing kernel, after which log-weights in
    the tilted model are -log min(1, c p*) whatever the recursion had made them. In the free model the tokens come from
    the tilted law, and their weights are then the best non-negative ones for the kernel (refit.py). minimax: the same
    and then rounds against the worst queries found (minimax.py), with a generator a head. minimax_random, exchange and
    minimax_weights: minimax without the worst queries, without the rounds, and without a change of tokens. Of a
    WeightedCache `measure` is the law of one of the tokens that each stands for (law.py), and log-weights are total.
    """
    settings, fixed, base = _MINIMAX.get(refinement), None, base_weights(cache)
    if refinement == "kernel_swaps" or (settings and model != "free"):
        log_p = measure.log_p if base is None else measure.log_p + base
        marginals = capped_marginals(log_p, coreset.size)
        fixed = -marginals.clamp_min(1e-300).log()  # of every token
        fixed = fixed if base is None else fixed + base
        coreset = _swapped(cache, coreset, measure, marginals, fixed)
    if model == "free":
        weights = kernel_weights(unit_kernel(cache.keys, cache.values, measure), coreset.indices, base)
        coreset, fixed = Coreset(coreset.indices, weights), None
    elif model == "unweighted" and base is None:
        coreset, fixed = Coreset(coreset.indices), None
    return minimax(cache, coreset, rho, model, fixed, generators, settings) if settings else coreset


def _swapped(cache: Cache, coreset: Coreset, measure: Law, marginals: Tensor, log_weights: Tensor) -> Coreset:
    gram = balancing_gram(cache.keys, cache.values, log_weights, measure)
    kept = torch.zeros_like(log_weights, dtype=torch.bool).scatter_(-1, coreset.indices, True)
    target = (gram @ marginals.unsqueeze(-1)).squeeze(-1)
    indices = kept_tokens(kernel_swaps(gram, kept, target), coreset.size)
    return Coreset(indices, log_weights.gather(-1, indices))
