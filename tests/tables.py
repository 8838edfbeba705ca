"""The tables that the tests run over: every synthetic family at a small size, every construction with its settings."""

import torch

from attention_coresets import Cache, make_cache, make_coreset

FAMILIES = (
    "sphere",
    "clusters",
    "low_rank",
    "cap_outliers",
    "antipodal",
    "signed_clusters",
    "equal_keys",
    "product",
    "ragged_clusters",
)

# norms other than 1; tokens with log-weights, which not every construction takes
OFF_SPHERE = ("spread_norms", "biased_logits")

CONSTRUCTIONS = (
    ("uniform", {}),
    ("paired_coin", {"model": "tilted", "recursion": "halving"}),
    ("paired_coin", {"model": "unweighted", "recursion": "one_walk"}),
    ("tilted_draws", {}),
    ("gram_schmidt_walk", {"model": "tilted", "recursion": "one_walk"}),
    ("gram_schmidt_walk", {"model": "tilted", "recursion": "halving"}),
    ("gram_schmidt_walk", {"model": "unweighted", "recursion": "one_walk", "scale": "rho"}),
    ("gram_schmidt_walk", {"model": "unweighted", "recursion": "halving", "scale": "inv_sqrt_d"}),
    ("gram_schmidt_walk", {"model": "tilted", "recursion": "one_walk", "form": "pivoted_cholesky", "rank": 20}),
    ("gram_schmidt_walk", {"model": "tilted", "recursion": "halving", "form": "random_features", "rank": 40}),
    ("self_balancing_walk", {"model": "tilted", "recursion": "halving", "c": 1.0}),
    ("self_balancing_walk", {"model": "unweighted", "recursion": "one_walk"}),
    ("kernel_halving", {"model": "tilted", "recursion": "one_walk"}),
    ("kernel_halving", {"model": "unweighted", "recursion": "halving", "scale": "one"}),
    ("greedy", {"model": "tilted", "recursion": "halving"}),
    ("greedy", {"model": "unweighted", "recursion": "one_walk"}),
    ("gram_schmidt_walk", {"model": "tilted", "refinement": "kernel_swaps"}),
    ("greedy", {"model": "unweighted", "refinement": "kernel_swaps"}),
    ("kernel_halving", {"model": "tilted", "recursion": "halving", "refinement": "round_swaps"}),
    ("kernel_halving", {"model": "unweighted", "recursion": "merge_reduce", "refinement": "round_swaps"}),
    ("gram_schmidt_walk", {"model": "tilted", "recursion": "compress", "refinement": "round_swaps"}),
    ("balancekv", {"variant": "published"}),
    ("thinformer", {"scale": "one"}),
    ("two_stage", {"keep": 2}),
    ("two_stage", {"first": "kernel_halving", "last": "walk_tilted", "keep": 2}),
    ("sensitivity_draws", {}),
    ("herding", {"model": "tilted"}),
    ("herding", {"model": "unweighted", "scale": "one"}),
    ("frank_wolfe", {}),
    ("nystrom", {"scale": "rho"}),
    ("k_center", {}),
    ("k_center", {"metric": "keys_values"}),
    ("subgen", {}),
    ("gram_schmidt_walk", {"model": "tilted", "recursion": "merge_reduce"}),
    ("gram_schmidt_walk", {"model": "unweighted", "recursion": "compress"}),
    ("self_balancing_walk", {"model": "unweighted", "recursion": "merge_reduce", "c": 1.0}),
    ("kernel_halving", {"model": "tilted", "recursion": "compress_pp"}),
    ("greedy", {"model": "tilted", "recursion": "compress"}),
)

# log-weights of their own making
OWN_WEIGHTS = ("sensitivity_draws", "frank_wolfe", "nystrom", "k_center", "subgen", "two_stage")
AS_THEY_STAND = ("thinformer",)  # its kernel has the keys uncentred, as published: a shift of them changes tokens
DETERMINISTIC = ("herding", "frank_wolfe")  # draw no random numbers
SIGN_RULES = ("self_balancing_walk", "kernel_halving", "greedy")  # adaptive signs: fair at 1/2 by symmetry alone


def label(entry) -> str:
    """A test's name for one row of CONSTRUCTIONS."""
    name, parameters = entry
    return "-".join([name, *map(str, parameters.values())])


def small_parameters(family: str, n: int = 48, d: int = 4) -> dict:
    """Parameters that give `family` about n tokens in R^d (signed_clusters needs a multiple of 2 d)."""
    own = {
        "clusters": {"clusters": 6},
        "low_rank": {"rank": max(1, d // 2)},
        "antipodal": {"rho": 1.0},
        "product": {"distinct": min(4, n)},
    }
    if family == "signed_clusters":
        n = max(1, round(n / (2 * d))) * 2 * d
    return {"n": n, "d": d, **own.get(family, {})}


def small_cache(family: str, n: int = 48, d: int = 4, *, heads: int | None = None, seed: int = 0, **overrides) -> Cache:
    """One small cache of a family, or a batch."""
    return make_cache(family, seed=seed, heads=heads, **{**small_parameters(family, n, d), **overrides})


def generators(*seeds: int) -> list[torch.Generator]:
    """One seeded generator a head."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def build(entry, cache: Cache, size: int, rho: float, generator):
    """The coreset that one row of CONSTRUCTIONS makes."""
    name, parameters = entry
    return make_coreset(name, **parameters)(cache, size, rho, generator)


def repeated(cache: Cache, times: int) -> Cache:
    """One head's cache as `times` heads: replicates of a construction in one call."""
    return Cache(*(x.unsqueeze(0).repeat(times, 1, 1) for x in (cache.keys, cache.values)))
