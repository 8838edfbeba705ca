"""The laws fitted to the experiments on rates: fixed here, before any result is seen."""

from attention_coresets.analysis.stats.plan import ARM, DECAY, FitPlan

_GAMMA = ("gamma", "log_inv_epsilon")


def _both_sides(name: str, experiment: str, symbol: str, column: str, *fixed: str) -> tuple[FitPlan, FitPlan]:
    each = (*ARM, *fixed)
    return (
        FitPlan(name, experiment, "size", ((symbol, column), _GAMMA), each, column),
        FitPlan(f"{name}_error", experiment, "error", ((f"{symbol}_error", column), DECAY), each, column),
    )


PLANS: tuple[FitPlan, ...] = (
    FitPlan("epsilon_rate", "epsilon_rate", "size", (_GAMMA,), (*ARM, "n", "d", "rho"), "log_inv_epsilon"),
    FitPlan("epsilon_rate_error", "epsilon_rate", "error", (DECAY,), (*ARM, "n", "d", "rho"), "size"),
    *_both_sides("d_rate", "d_rate", "alpha", "log_d", "rho"),
    *_both_sides("rho_rate", "rho_rate", "beta", "exponent", "n", "d"),
    *_both_sides("rho_rate_plain", "rho_rate", "beta_rho", "rho", "n", "d"),
    *_both_sides("n_independence", "n_independence", "nu", "log_n", "d", "rho"),
)
