"""What may follow a choice of tokens: swaps of tokens, and in the free model the fit of their weights."""

import torch
from torch import Tensor

from attention_coresets.attention import Cache, Coreset
from attention_coresets.coresets.kernel_swaps import kernel_swaps
from attention_coresets.coresets.law import balancing_gram, capped_marginals, law
from attention_coresets.coresets.minimax import Minimax, minimax
from attention_coresets.coresets.refit import refit_log_weights
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
    generators: list[torch.Generator],
    *,
    model: str,
    scale: str,
    refinement: str,
) -> Coreset:
    """The coreset of a flat batch of heads after `refinement`, in float64, its size unchanged.

    none: the tokens as they are. kernel_swaps: one pass of KT-SWAP on the balancing kernel, after which log-weights in
    the tilted model are -log min(1, c p*) whatever the recursion had made them. In the free model the tokens come from
    the tilted law, and their weights are then the best non-negative ones for the kernel (refit.py). minimax: the same
    and then rounds against the worst queries found (minimax.py), with a generator a head. minimax_random, exchange and
    minimax_weights: minimax without the worst queries, without the rounds, and without a change of tokens.
    """
    settings = _MINIMAX.get(refinement)
    if settings is None:
        if refinement == "kernel_swaps":
            coreset = _swapped(cache, coreset, rho, model, scale)
        return refit_log_weights(cache, coreset, rho, scale=scale) if model == "free" else coreset
    if model == "free":
        return minimax(
            cache, refit_log_weights(cache, coreset, rho, scale=scale), rho, model, None, generators, settings
        )
    log_weights = None if model == "unweighted" else _weights(cache, coreset.size, rho, model, scale)
    return minimax(cache, _swapped(cache, coreset, rho, model, scale), rho, model, log_weights, generators, settings)


def _weights(cache: Cache, size: int, rho: float, model: str, scale: str) -> Tensor:
    """-log min(1, c p) of every token."""
    return -capped_marginals(law(cache.keys, rho, model, scale).log_p, size).clamp_min(1e-300).log()


def _swapped(cache: Cache, coreset: Coreset, rho: float, model: str, scale: str) -> Coreset:
    measure = law(cache.keys, rho, model, scale)
    marginals = capped_marginals(measure.log_p, coreset.size)
    log_weights = -marginals.clamp_min(1e-300).log()
    gram = balancing_gram(cache.keys, cache.values, log_weights, measure)
    kept = torch.zeros_like(marginals, dtype=torch.bool).scatter_(-1, coreset.indices, True)
    target = (gram @ marginals.unsqueeze(-1)).squeeze(-1)
    indices = _places(kernel_swaps(gram, kept, target), coreset.size)
    return Coreset(indices, None if model == "unweighted" else log_weights.gather(-1, indices))


def _places(kept: Tensor, size: int) -> Tensor:
    """The `size` places of each head where `kept` is true, in order."""
    return kept.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices[:, :size]
