"""What the claims of the ablation expect, fixed before their runs: see `parts.band`."""

from math import inf

from attention_coresets.analysis.parts.band import Band

BANDS: dict[str, Band] = {
    # ablation: the tilted Gram-Schmidt walk against the best other rule, error ratio on the same caches
    "ablation": Band(-inf, 1.25),
}
