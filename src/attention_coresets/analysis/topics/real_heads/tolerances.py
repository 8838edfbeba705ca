"""What the claims of the heads of a real model expect, fixed before their runs: see `parts.band`."""

from math import inf

from attention_coresets.analysis.parts.band import Band, about, anything

BANDS: dict[str, Band] = {
    # real heads, SmolLM2-135M (*: median rho 49, T from 11 to 72 over heads with median 19; 49 ± 10 and log T 3 ± 1
    # were then set for these same heads, and could not well fail)
    "real_rho": anything(pilot=True),
    "real_log_t": anything(pilot=True),
    # of attention on tokens that calibration puts at a tenth of their weight or less; a guess
    "real_uncovered": Band(-inf, 0.05),
    # m err / (sqrt(d) T) where m err / (sqrt(d) e^{rho sigma}) lies on synthetic caches (0.01 to 0.58 at most there)
    "real_constant": Band(0.01, 0.6, text="0.01 to 0.6"),
    # err = constant sqrt(d) T / m, head by head: slope 1 in log T (theory.md calls it a conjecture)
    "real_t_slope": about(1.0, 0.5, 0.0),
    # issue: errors and losses lower than another arm's, the interval excluding none
    "real_ratio": Band(-inf, 1.0, (1.0,)),
}
