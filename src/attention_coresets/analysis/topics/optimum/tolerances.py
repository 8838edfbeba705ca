"""What the claims of the exact optimum expect, fixed before their runs: see `parts.band`."""

from math import inf

from attention_coresets.analysis.parts.band import Band

BANDS: dict[str, Band] = {
    # the optimum is proven to 1 % (its own tolerance)
    "optimum_below": Band(0.99, inf),
    # a guess before any optimum was known: a random sign leaves a few times what the best signs leave
    "optimum_walk": Band(-inf, 4.0),
}
