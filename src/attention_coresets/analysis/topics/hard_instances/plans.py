"""The law fitted to the controls: fixed here, before any result is seen."""

from attention_coresets.analysis.stats.plan import ARM, DECAY, FitPlan

PLANS: tuple[FitPlan, ...] = (
    FitPlan("controls", "lower_bound_controls", "error", (("slope", "rho"), DECAY), (*ARM, "n", "d"), "rho"),
)
