"""What the claims on caches sought to be hard expect: see `parts.band`."""

from math import inf

from attention_coresets.analysis.parts.band import Band

BANDS: dict[str, Band] = {
    # over what balanced signs of the vertices of a simplex leave as rho sigma -> 0; verified to 1e-3
    "hardness_ceiling": Band(
        -inf,
        1.0 + 1e-3,
        text="≤ 1",
        after="in what it is held against, by pilot searches at d = 4, n = 12 and 16: ½ had been thought the largest,"
        " but searches at ρ = 1 ended at 0.57 with σ near 0, where a simplex leaves ½√(d/(d−1)) = 0.577",
    ),
    # issue: at n = 16, d = 4, rho = 1, where signed clusters have 0.264
    "hardness_found": Band(0.38, inf),
}
