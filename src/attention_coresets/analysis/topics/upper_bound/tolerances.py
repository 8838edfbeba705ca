"""What the claim on the constant of every row expects, fixed before upper_bound was run: see `parts.band`."""

from math import inf

from attention_coresets.analysis.parts.band import Band

BANDS: dict[str, Band] = {
    # m err / (sqrt(d) e^{rho sigma}) of single rows: the band of the medians, sqrt(log(2 + rho)) or so for rho <= 3
    "constant_sigma": Band(
        -inf,
        1.3,
        after="informed by the rows of the other experiments, up to 0.904; those of upper_bound were not known",
        pilot=True,
    ),
    # a theorem, for all rows at once with probability 0.99
    "balancing_bound": Band(-inf, 1.0),
}
