"""Lists the arms of the study: one row each, a construction with its parameters, the name it is shown by, and its look.

A row is all that an arm needs: `arm=LABEL` of a sweep, figures and tables read it here, and `make_coreset(LABEL)`
unless the label is a construction's name too (snapkv, paired_coin), whose own defaults then count.
Parameters that a row leaves out have the construction's own defaults. Rows stand in the order of the legends.
"""

from dataclasses import dataclass, field
from typing import Any

# of the coreset models, where an arm has no colour of its own
TILTED, UNWEIGHTED, FREE = "#0173b2", "#de8f05", "#029e73"
GREY = "0.55"
# what an arm of the ablation changes of the tilted Gram-Schmidt walk
RULE, RECURSION, REFINEMENT, SCALE, OWN = "balancing rule", "recursion", "refinement", "kernel scale", "our own"
AXES = (RULE, RECURSION, REFINEMENT, SCALE, OWN)


@dataclass(frozen=True)
class Arm:
    """A construction under study.

    label: its name in commands and tables of results.
    construction: its name in CORESETS.
    title: its name in figures.
    color, marker: of its curves. Triangles that point up or right stay free: they mean censored.
    axis: what it changes of the tilted walk, one of AXES.
    ours: whether the construction is this project's own. A published rule, even with our tilt, scale or combination, is
        not.
    parameters: those that differ from the construction's defaults.
    """

    label: str
    construction: str
    title: str
    color: str
    marker: str
    axis: str
    ours: bool
    parameters: dict[str, Any] = field(hash=False)


def _arm(
    label: str,
    construction: str,
    title: str,
    color: str,
    marker: str,
    *,
    axis: str = RULE,
    ours: bool = False,
    **parameters: Any,
) -> Arm:
    return Arm(label, construction, title, color, marker, axis, ours or axis == OWN, parameters)


# fmt: off
_ROWS = (
    _arm("walk_tilted", "gram_schmidt_walk", "Gram–Schmidt walk (tilted)", TILTED, "o"),
    _arm("walk_unweighted", "gram_schmidt_walk", "Gram–Schmidt walk (unweighted)", UNWEIGHTED, "s", model="unweighted"),
    _arm("halving_unweighted", "gram_schmidt_walk", "Gram–Schmidt halving (unweighted)", FREE, "D",
         axis=RECURSION, model="unweighted", recursion="halving"),
    _arm("halving_tilted", "gram_schmidt_walk", "Gram–Schmidt halving (tilted)", "#56b4e9", "h",
         axis=RECURSION, recursion="halving"),
    _arm("uniform", "uniform", "uniform (unweighted)", "#d55e00", "X"),
    _arm("tilted_draws", "tilted_draws", "random draws (tilted)", "#cc78bc", "P"),
    _arm("sinks_uniform", "uniform", "sinks + uniform (reweighted)", FREE, "D", sinks=4),
    _arm("paired_coin", "paired_coin", "paired coin (unweighted)", "#949494", "X", model="unweighted"),
    _arm("self_balancing_tilted", "self_balancing_walk", "self-balancing walk (tilted)", "#56b4e9", "p"),
    _arm("self_balancing_unweighted", "self_balancing_walk", "self-balancing walk (unweighted)", "#ca9161", "p",
         model="unweighted"),
    _arm("kernel_halving_tilted", "kernel_halving", "kernel halving (tilted)", "#56b4e9", "d"),
    _arm("kernel_halving_unweighted", "kernel_halving", "kernel halving (unweighted)", "#ca9161", "d",
         model="unweighted"),
    _arm("self_balancing_c1_tilted", "self_balancing_walk", "self-balancing walk, c = 1 (tilted)", "#56b4e9", "H",
         c=1.0),
    _arm("walk_tilted_scale_one", "gram_schmidt_walk", "Gram–Schmidt walk, scale 1 (tilted)", "#56b4e9", "<",
         axis=SCALE, scale="one"),
    _arm("walk_tilted_scale_rho", "gram_schmidt_walk", "Gram–Schmidt walk, scale ρ (tilted)", "#56b4e9", "<",
         axis=SCALE, scale="rho"),
    _arm("walk_tilted_scale_inv_sqrt_d", "gram_schmidt_walk", "Gram–Schmidt walk, scale 1/√d (tilted)", "#56b4e9", "<",
         axis=SCALE, scale="inv_sqrt_d"),
    _arm("greedy_tilted", "greedy", "greedy signs (tilted)", "#56b4e9", "*"),
    _arm("greedy_unweighted", "greedy", "greedy signs (unweighted)", "#ca9161", "*", model="unweighted"),
    _arm("sensitivity_draws", "sensitivity_draws", "sensitivity draws (tilted)", "#cc78bc", "P"),
    _arm("walk_tilted_kernel_swaps", "gram_schmidt_walk", "Gram–Schmidt walk, kernel swaps (tilted)", TILTED, "v",
         axis=REFINEMENT, refinement="kernel_swaps"),
    _arm("kernel_halving_tilted_kernel_swaps", "kernel_halving",
         "kernel thinning: halving, kernel swaps (tilted)", TILTED, "v",
         axis=REFINEMENT, refinement="kernel_swaps"),
    _arm("greedy_tilted_kernel_swaps", "greedy", "greedy signs, kernel swaps (tilted)", TILTED, "v",
         axis=REFINEMENT, refinement="kernel_swaps"),
    _arm("walk_tilted_compress", "gram_schmidt_walk", "Gram–Schmidt walk, Compress (tilted)", TILTED, "v",
         axis=RECURSION, recursion="compress"),
    _arm("kernel_halving_tilted_compress_pp", "kernel_halving", "kernel halving, Compress++ (tilted)", TILTED, "v",
         axis=RECURSION, recursion="compress_pp"),
    _arm("walk_tilted_refit", "gram_schmidt_walk", "Gram–Schmidt walk, weights refitted (free)", FREE, "D",
         axis=REFINEMENT, model="free"),
    _arm("herding_unweighted", "herding", "herding (unweighted)", UNWEIGHTED, "s", model="unweighted"),
    _arm("herding_tilted", "herding", "herding (tilted)", TILTED, "o"),
    _arm("frank_wolfe", "frank_wolfe", "Frank–Wolfe, fully corrective (free)", FREE, "D"),
    _arm("nystrom", "nystrom", "Nyström weights (free)", FREE, "D"),
    _arm("k_center", "k_center", "k-center, counts as weights (free)", FREE, "D"),
    _arm("subgen", "subgen", "SubGen clusters (free)", FREE, "D"),
    _arm("balancekv_published", "balancekv", "BalanceKV as published (unweighted)", UNWEIGHTED, "s", scale="one"),
    _arm("balancekv_shipped", "balancekv", "BalanceKV as shipped (free)", FREE, "D", variant="shipped", scale="one"),
    _arm("thinformer_unweighted", "thinformer", "Thinformer (unweighted)", UNWEIGHTED, "s", scale="one"),
    _arm("walk_unweighted_kernel_swaps", "gram_schmidt_walk",
         "Gram–Schmidt walk, kernel swaps (unweighted)", UNWEIGHTED, "v",
         axis=REFINEMENT, model="unweighted", refinement="kernel_swaps"),
    _arm("kernel_halving_unweighted_kernel_swaps", "kernel_halving",
         "kernel thinning: halving, kernel swaps (unweighted)", UNWEIGHTED, "v",
         axis=REFINEMENT, model="unweighted", refinement="kernel_swaps"),
    _arm("walk_free_kernel_swaps", "gram_schmidt_walk", "Gram–Schmidt walk, kernel swaps, refitted (free)", FREE, "v",
         axis=REFINEMENT, model="free", refinement="kernel_swaps"),
    _arm("walk_tilted_compress_pp", "gram_schmidt_walk", "Gram–Schmidt walk, Compress++ (tilted)", TILTED, "v",
         axis=RECURSION, recursion="compress_pp"),
    _arm("walk_tilted_merge_reduce", "gram_schmidt_walk", "Gram–Schmidt walk, merge-reduce (tilted)", TILTED, "v",
         axis=RECURSION, recursion="merge_reduce"),
    _arm("kernel_halving_tilted_compress", "kernel_halving", "kernel halving, Compress (tilted)", TILTED, "v",
         axis=RECURSION, recursion="compress"),
    _arm("kernel_halving_tilted_compress_round_swaps", "kernel_halving",
         "kernel thinning: Compress, swaps each round (tilted)", TILTED, "v",
         axis=REFINEMENT, recursion="compress", refinement="round_swaps"),
    _arm("kernel_halving_unweighted_compress_round_swaps", "kernel_halving",
         "kernel thinning: Compress, swaps each round (unweighted)", UNWEIGHTED, "v",
         axis=REFINEMENT, model="unweighted", recursion="compress", refinement="round_swaps"),
    _arm("kernel_halving_unweighted_compress_pp", "kernel_halving",
         "kernel halving, Compress++ (unweighted)", UNWEIGHTED, "v",
         axis=RECURSION, model="unweighted", recursion="compress_pp"),
    _arm("kernel_halving_unweighted_compress_pp_kernel_swaps", "kernel_halving",
         "kernel thinning: Compress++, kernel swaps (unweighted)", UNWEIGHTED, "v",
         axis=REFINEMENT, model="unweighted", recursion="compress_pp", refinement="kernel_swaps"),
    _arm("kernel_halving_tilted_compress_pp_kernel_swaps", "kernel_halving",
         "kernel thinning: Compress++, kernel swaps (tilted)", TILTED, "v",
         axis=REFINEMENT, recursion="compress_pp", refinement="kernel_swaps"),
    _arm("walk_tilted_pivoted_cholesky", "gram_schmidt_walk",
         "Gram–Schmidt walk on 256 pivoted columns (tilted)", TILTED, "v",
         form="pivoted_cholesky", rank=256),
    _arm("walk_tilted_random_features", "gram_schmidt_walk",
         "Gram–Schmidt walk on 256 random features (tilted)", TILTED, "v",
         form="random_features", rank=256),
    _arm("minimax_unweighted", "gram_schmidt_walk", "ours: minimax swaps (unweighted)", UNWEIGHTED, "s",
         axis=OWN, model="unweighted", refinement="minimax"),
    _arm("minimax_tilted", "gram_schmidt_walk", "ours: minimax swaps (tilted)", TILTED, "o",
         axis=OWN, refinement="minimax"),
    _arm("minimax_free", "gram_schmidt_walk", "ours: exchanges, minimax weights (free)", FREE, "D",
         axis=OWN, model="free", refinement="minimax"),
    _arm("portfolio_unweighted", "gram_schmidt_walk", "ours: portfolio of starts (unweighted)", UNWEIGHTED, "*",
         axis=OWN, model="unweighted", refinement="portfolio"),
    _arm("portfolio_tilted", "gram_schmidt_walk", "ours: portfolio of starts (tilted)", TILTED, "*",
         axis=OWN, refinement="portfolio"),
    _arm("minimax_tilted_random_queries", "gram_schmidt_walk", "ours, random queries only (tilted)", TILTED, "v",
         axis=OWN, refinement="minimax_random"),
    _arm("minimax_free_exchange", "gram_schmidt_walk", "ours, exchanges only (free)", FREE, "v",
         axis=OWN, model="free", refinement="exchange"),
    _arm("minimax_free_weights", "gram_schmidt_walk", "ours, minimax weights only (free)", FREE, "v",
         axis=OWN, model="free", refinement="minimax_weights"),
    _arm("minimax_free_random_queries", "gram_schmidt_walk", "ours, random queries only (free)", FREE, "v",
         axis=OWN, model="free", refinement="minimax_random"),
    _arm("certificate_free", "gram_schmidt_walk", "ours: exchanges for the certificate (free)", FREE, "P",
         axis=OWN, model="free", refinement="certificate"),
    _arm("certificate_free_weights", "gram_schmidt_walk", "ours, weights for the certificate only (free)", FREE, "v",
         axis=OWN, model="free", refinement="certificate_weights"),
    _arm("certificate_free_fixed", "gram_schmidt_walk", "ours, for the first form of the certificate (free)", FREE, "v",
         axis=OWN, model="free", refinement="certificate_fixed"),
    _arm("streaming_llm", "streaming_llm", "StreamingLLM (unweighted)", "#949494", "s"),
    _arm("h2o", "h2o", "H2O (unweighted)", "#8c564b", "s"),
    _arm("snapkv", "snapkv", "SnapKV (unweighted)", UNWEIGHTED, "s", window=16),
    _arm("tova", "tova", "TOVA (unweighted)", "#ece133", "s"),
    _arm("knorm", "knorm", "Knorm (unweighted)", "#fbafe4", "s"),
    _arm("keydiff", "keydiff", "KeyDiff (unweighted)", "#ca9161", "s"),
    _arm("expected_attention", "expected_attention", "Expected Attention (unweighted)", "#cc78bc", "s"),
    _arm("curdkv", "curdkv", "CurDKV (unweighted)", "#56b4e9", "s"),
    _arm("query_walk", "query_walk", "walk on calibration queries (tilted)", "#000000", "o", ours=True),
    _arm("query_exchange", "query_exchange", "ours: exchanges on calibration queries (free)", FREE, "*", ours=True),
    _arm("query_exchange_weights", "query_exchange", "ours, weights only (free)", "#78c6a3", "v", ours=True, moves=0),
    _arm("optimum_free", "optimum", "exact optimum (free)", GREY, "8", model="free"),
    _arm("optimum_tilted", "optimum", "exact optimum (tilted)", GREY, "8"),
    _arm("optimum_unweighted", "optimum", "exact optimum (unweighted)", GREY, "8", model="unweighted"),
    _arm("coordinate_subset", "coordinate_subset", "coordinate subset, knows the instance (unweighted)", "#000000", "D",
         ours=True),
    _arm("query_exchange_causal", "query_exchange", "exchanges on calibration queries as they stand (free)", GREY, "8",
         ours=True, moved=False),
    _arm("query_walk_causal", "query_walk", "walk on calibration queries as they stand (tilted)", GREY, "8",
         ours=True, moved=False),
    _arm("query_walk_kernel_swaps", "query_walk", "walk on calibration queries, kernel swaps (tilted)", GREY, "8",
         axis=REFINEMENT, ours=True, refinement="kernel_swaps"),
    _arm("query_walk_max", "query_walk", "walk on calibration queries, largest marginals (tilted)", GREY, "8",
         ours=True, marginals="max"),
    _arm("query_walk_sinks", "query_walk", "walk on calibration queries, sinks kept (tilted)", GREY, "8",
         ours=True, sinks=4),
    _arm("query_walk_smoothed", "query_walk", "walk on calibration queries, smoothed marginals (tilted)", GREY, "8",
         ours=True, marginals="smoothed"),
)
# fmt: on

ARMS: dict[str, Arm] = {row.label: row for row in _ROWS}
