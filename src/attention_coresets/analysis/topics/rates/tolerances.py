"""What the claims of the rates and of the constant expect, fixed before their runs: see `parts.band`."""

from math import inf

from attention_coresets.analysis.parts.band import Band, about

BANDS: dict[str, Band] = {
    # m ~ epsilon^-gamma: 1 for balanced signs, 2 for independent draws
    "gamma_balanced": about(1.0, 0.1, 1.5),
    "gamma_uniform": Band(1.5, inf, (1.1,)),
    # m ~ d^alpha: 1/2 for balanced signs; between 0 (one query) and 1 (their supremum) for draws
    "alpha_balanced": about(0.5, 0.15, 0.0, 1.0),
    "alpha_uniform": Band(-0.1, 1.1, text="0 to 1, give or take 0.1"),
    # m ~ e^{beta x}, x the exponent of the arm's own coreset model; the bound allows at most 1
    "beta": about(1.0, 0.2, 0.5, 1.5),
    "beta_bound": Band(-inf, 1.1),
    # growth in rho of log(unweighted error / tilted error) at one size: R - sigma or so where the models differ
    "models_apart": Band(0.25, inf, (0.0,)),
    # m ~ n^nu
    "nu": about(0.0, 0.1, 0.5),
    # issue: m err / (sqrt(d) e^rho) on sphere and cap_outliers (*: 0.01 to 0.52 seen)
    "constant_issue": Band(-inf, 0.7),
    # m err / (sqrt(d) e^{rho sigma}): the bound says O(sqrt(log(2 + rho))), which is at most 1.3 for rho <= 3
    "constant_sigma": Band(-inf, 1.3),
    # issue: antipodal, rho = 3, m = 512, n = 2048, d = 8 (*: 0.0016 and 0.21 seen)
    "antipodal_tilted_error": Band(-inf, 0.01),
    "antipodal_uniform_error": Band(0.1, inf),
}
