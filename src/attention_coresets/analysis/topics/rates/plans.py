"""The laws fitted to the experiments on rates: fixed here, before any result is seen.

On benign caches the theorem promises no power law, so beside each law over the whole range stand those of its parts:
between successive d, and in two halves of the range of rho.
"""

from itertools import pairwise

from attention_coresets.analysis.stats.plan import ARM, DECAY, FitPlan, Regime, Window

_GAMMA = ("gamma", "log_inv_epsilon")
ABOVE_THE_RANK = Regime(min_per_dimension=8.0)  # sizes well above the kernel's effective rank, which grows with d
DIMENSIONS = (4.0, 8.0, 16.0, 32.0, 64.0)  # whose successive pairs have slopes of their own
HALVES = ((1.0, 2.0), (2.0, 3.0))  # of rho


def _both_sides(
    name: str, experiment: str, symbol: str, column: str, *fixed: str, regime: Regime
) -> tuple[FitPlan, FitPlan]:
    each = (*ARM, *fixed)
    return (
        FitPlan(name, experiment, "size", ((symbol, column), _GAMMA), each, column, regime),
        FitPlan(f"{name}_error", experiment, "error", ((f"{symbol}_error", column), DECAY), each, column, regime),
    )


def _local(name: str, experiment: str, feature: tuple[str, str], each: tuple[str, ...], window: Window) -> FitPlan:
    return FitPlan(
        name, experiment, "size", (feature, _GAMMA), (*ARM, *each), feature[1], ABOVE_THE_RANK, window=window
    )


PLANS: tuple[FitPlan, ...] = (
    FitPlan(
        "epsilon_rate",
        "epsilon_rate",
        "size",
        (_GAMMA,),
        (*ARM, "n", "d", "rho"),
        "log_inv_epsilon",
        ABOVE_THE_RANK,
    ),
    FitPlan("epsilon_rate_error", "epsilon_rate", "error", (DECAY,), (*ARM, "n", "d", "rho"), "size", ABOVE_THE_RANK),
    *_both_sides("d_rate", "d_rate", "alpha", "log_d", "n", "rho", regime=ABOVE_THE_RANK),
    *(
        _local("d_local", "d_rate", ("alpha", "log_d"), ("n", "rho"), ("d", d, twice))
        for d, twice in pairwise(DIMENSIONS)
    ),
    *_both_sides("rho_rate", "rho_rate", "beta", "exponent", "n", "d", regime=ABOVE_THE_RANK),
    *(_local("rho_halves", "rho_rate", ("beta", "exponent"), ("n", "d"), ("rho", low, high)) for low, high in HALVES),
    *_both_sides("rho_rate_plain", "rho_rate", "beta_rho", "rho", "n", "d", regime=ABOVE_THE_RANK),
    *_both_sides("n_independence", "n_independence", "nu", "log_n", "d", "rho", regime=Regime()),
)
