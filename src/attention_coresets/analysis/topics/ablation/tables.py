"""Every arm of the ablation over the tilted walk, as Markdown."""

from attention_coresets.analysis.parts.arm_names import ARM, axis_of, model_of
from attention_coresets.analysis.parts.markdown import interval, table
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import NOTHING, paired_ratios
from attention_coresets.analysis.stats.frames import distinct, groups
from attention_coresets.coresets.arms import AXES


def ablation(results: Results) -> str:
    """Error of every arm over that of walk_tilted on the same caches, family by family."""
    rows = results.rows("ablation")
    families = {names["cache"]: paired_ratios(group, "walk_tilted") for names, group in groups(rows, ["cache"])}
    arms = sorted(distinct(rows, "arm"), key=lambda arm: (AXES.index(axis_of(arm)), arm))
    lines = [
        [
            axis_of(arm),
            model_of(rows, arm),
            *(interval(ratios.get(arm, NOTHING)) for ratios in families.values()),
        ]
        for arm in arms
        if arm != "walk_tilted"
    ]
    note = "Error over that of walk_tilted (tilted): geometric mean over ρ and m, median over caches.\n\n"
    return note + table(["Changes", ARM, *families], lines)
