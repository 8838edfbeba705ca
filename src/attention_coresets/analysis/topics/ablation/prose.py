"""A sentence with numbers on the ablation: what contradicted expectations."""

from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.wording import extremes
from attention_coresets.analysis.stats.estimates import paired_ratio
from attention_coresets.analysis.stats.frames import groups

WIDER = "walk_tilted_scale_inv_sqrt_d"  # the walk with a² = 1/√d


def wider_kernel(results: Results) -> str:
    rows = results.rows("ablation")
    ratios = [paired_ratio(family, WIDER, "walk_tilted") for _, family in groups(rows, ["cache"])]
    ratios = [ratio for ratio in ratios if ratio.caches]
    better = sum(ratio.high < 1 for ratio in ratios)
    if not better:
        return ""
    return (
        "A smaller kernel scale (a wider kernel), a² = 1/√d in place of ρ/σ, makes the tilted walk better on"
        f" {better} of the ablation's {len(ratios)} families, its error {extremes(ratios)} times as large. The"
        " scale from the proof is not the best in practice."
    )
