"""The law of the sizes that heads need, fixed before any result is seen."""

from attention_coresets.analysis.stats.plan import FitPlan, Regime

SIZES, GEMMA = "real_sizes", "real_sizes_gemma"
OURS = "query_walk"
REGIME = Regime(max_fraction=0.5, min_per_dimension=0.0)  # all sizes that are swept

PLANS: tuple[FitPlan, ...] = (
    FitPlan(
        SIZES,
        SIZES,
        "size",
        (("total", "log_t"), ("gamma", "log_inv_epsilon")),
        ("arm", "cache", "n", "d"),
        "log_inv_epsilon",
        REGIME,
        error="heldout_p99",
        clusters=("layer",),
    ),
)
