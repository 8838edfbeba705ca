"""Which colour, marker and name each arm has in every figure."""

from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

TILTED, UNWEIGHTED, FREE = "#0173b2", "#de8f05", "#029e73"
MODEL_COLORS = {"unweighted": UNWEIGHTED, "tilted": TILTED, "free": FREE}
MODEL_MARKERS = {"unweighted": "s", "tilted": "o", "free": "D"}


@dataclass(frozen=True)
class Look:
    """How an arm is named and drawn. Triangles stay free: they mean censored."""

    label: str
    color: str
    marker: str


LOOKS = {
    "walk_tilted": Look("Gram–Schmidt walk (tilted)", TILTED, "o"),
    "walk_unweighted": Look("Gram–Schmidt walk (unweighted)", UNWEIGHTED, "s"),
    "halving_unweighted": Look("Gram–Schmidt halving (unweighted)", "#029e73", "D"),
    "halving_tilted": Look("Gram–Schmidt halving (tilted)", "#56b4e9", "h"),
    "uniform": Look("uniform (unweighted)", "#d55e00", "X"),
    "tilted_draws": Look("p* draws (tilted)", "#cc78bc", "P"),
    "sinks_uniform": Look("sinks + uniform (reweighted)", "#029e73", "D"),
    "paired_coin": Look("paired coin (unweighted)", "#949494", "X"),
    "self_balancing_tilted": Look("self-balancing walk (tilted)", "#56b4e9", "p"),
    "self_balancing_unweighted": Look("self-balancing walk (unweighted)", "#ca9161", "p"),
    "kernel_halving_tilted": Look("kernel halving (tilted)", "#56b4e9", "d"),
    "kernel_halving_unweighted": Look("kernel halving (unweighted)", "#ca9161", "d"),
    "self_balancing_c1_tilted": Look("self-balancing walk, c = 1 (tilted)", "#56b4e9", "H"),
    "walk_tilted_scale_one": Look("Gram–Schmidt walk, scale 1 (tilted)", "#56b4e9", "<"),
    "walk_tilted_scale_rho": Look("Gram–Schmidt walk, scale ρ (tilted)", "#56b4e9", "<"),
    "walk_tilted_scale_inv_sqrt_d": Look("Gram–Schmidt walk, scale 1/√d (tilted)", "#56b4e9", "<"),
    "greedy_tilted": Look("greedy signs (tilted)", "#56b4e9", "*"),
    "greedy_unweighted": Look("greedy signs (unweighted)", "#ca9161", "*"),
    "sensitivity_draws": Look("sensitivity draws (tilted)", "#cc78bc", "P"),
    "walk_tilted_kernel_swaps": Look("Gram–Schmidt walk, kernel swaps (tilted)", TILTED, "v"),
    "kernel_halving_tilted_kernel_swaps": Look("kernel thinning: halving, kernel swaps (tilted)", TILTED, "v"),
    "greedy_tilted_kernel_swaps": Look("greedy signs, kernel swaps (tilted)", TILTED, "v"),
    "walk_tilted_compress": Look("Gram–Schmidt walk, Compress (tilted)", TILTED, "v"),
    "kernel_halving_tilted_compress_pp": Look("kernel halving, Compress++ (tilted)", TILTED, "v"),
    "walk_tilted_refit": Look("Gram–Schmidt walk, weights refitted (free)", FREE, "D"),
    "herding_unweighted": Look("herding (unweighted)", UNWEIGHTED, "s"),
    "herding_tilted": Look("herding (tilted)", TILTED, "o"),
    "frank_wolfe": Look("Frank–Wolfe, fully corrective (free)", FREE, "D"),
    "nystrom": Look("Nyström weights (free)", FREE, "D"),
    "k_center": Look("k-center, counts as weights (free)", FREE, "D"),
    "subgen": Look("SubGen clusters (free)", FREE, "D"),
    "balancekv_published": Look("BalanceKV as published (unweighted)", UNWEIGHTED, "s"),
    "balancekv_shipped": Look("BalanceKV as shipped (free)", FREE, "D"),
    "walk_unweighted_kernel_swaps": Look("Gram–Schmidt walk, kernel swaps (unweighted)", UNWEIGHTED, "v"),
    "kernel_halving_unweighted_kernel_swaps": Look(
        "kernel thinning: halving, kernel swaps (unweighted)", UNWEIGHTED, "v"
    ),
    "walk_free_kernel_swaps": Look("Gram–Schmidt walk, kernel swaps, refitted (free)", FREE, "v"),
    "walk_tilted_compress_pp": Look("Gram–Schmidt walk, Compress++ (tilted)", TILTED, "v"),
    "walk_tilted_merge_reduce": Look("Gram–Schmidt walk, merge-reduce (tilted)", TILTED, "v"),
    "kernel_halving_tilted_compress": Look("kernel halving, Compress (tilted)", TILTED, "v"),
    "kernel_halving_unweighted_compress_pp": Look("kernel halving, Compress++ (unweighted)", UNWEIGHTED, "v"),
    "kernel_halving_unweighted_compress_pp_kernel_swaps": Look(
        "kernel thinning: Compress++, kernel swaps (unweighted)", UNWEIGHTED, "v"
    ),
    "kernel_halving_tilted_compress_pp_kernel_swaps": Look(
        "kernel thinning: Compress++, kernel swaps (tilted)", TILTED, "v"
    ),
    "walk_tilted_pivoted_cholesky": Look("Gram–Schmidt walk on 256 pivoted columns (tilted)", TILTED, "v"),
    "walk_tilted_random_features": Look("Gram–Schmidt walk on 256 random features (tilted)", TILTED, "v"),
    "minimax_unweighted": Look("ours: minimax swaps (unweighted)", UNWEIGHTED, "s"),
    "minimax_tilted": Look("ours: minimax swaps (tilted)", TILTED, "o"),
    "minimax_free": Look("ours: exchanges, minimax weights (free)", FREE, "D"),
    "minimax_tilted_random_queries": Look("ours, random queries only (tilted)", TILTED, "v"),
    "minimax_free_exchange": Look("ours, exchanges only (free)", FREE, "v"),
    "minimax_free_weights": Look("ours, minimax weights only (free)", FREE, "v"),
    "minimax_free_random_queries": Look("ours, random queries only (free)", FREE, "v"),
    "streaming_llm": Look("StreamingLLM (unweighted)", "#949494", "s"),
    "h2o": Look("H2O (unweighted)", "#8c564b", "s"),
    "snapkv": Look("SnapKV (unweighted)", "#de8f05", "s"),
    "tova": Look("TOVA (unweighted)", "#ece133", "s"),
    "knorm": Look("Knorm (unweighted)", "#fbafe4", "s"),
    "keydiff": Look("KeyDiff (unweighted)", "#ca9161", "s"),
    "expected_attention": Look("Expected Attention (unweighted)", "#cc78bc", "s"),
    "curdkv": Look("CurDKV (unweighted)", "#56b4e9", "s"),
    "query_walk": Look("walk on calibration queries (tilted)", "#000000", "o"),
    "query_exchange": Look("ours: exchanges on calibration queries (free)", "#029e73", "*"),
    "query_exchange_weights": Look("ours, weights only (free)", "#78c6a3", "v"),
}


def look(arm: str) -> Look:
    """The look of an arm; one that is not listed is grey and keeps its name."""
    return LOOKS.get(arm, Look(arm, "0.55", "8"))


def in_order(arms: Iterable[str]) -> list[str]:
    """Arms in the order of LOOKS, unlisted ones last."""
    known = list(LOOKS)
    return sorted(arms, key=lambda arm: (known.index(arm) if arm in known else len(known), arm))


def model_legend(figure: Figure, models: Iterable[str]) -> None:
    """A legend below the panels of the coreset models' colours and markers."""
    shown = [model for model in MODEL_COLORS if model in set(models)]
    marks = [Line2D([], [], color=MODEL_COLORS[model], marker=MODEL_MARKERS[model]) for model in shown]
    figure.legend(marks, shown, loc="outside lower center", ncols=len(shown))
