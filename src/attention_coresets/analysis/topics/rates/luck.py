"""The spread of errors, split into luck of the cache and luck of the construction, as Markdown."""

import numpy as np

from attention_coresets.analysis.parts.arm_names import ARM, model_of
from attention_coresets.analysis.parts.markdown import interval, number, table
from attention_coresets.analysis.parts.measured import setting
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.components import components
from attention_coresets.analysis.stats.frames import groups


def luck(results: Results) -> str:
    """Standard deviations of log error between caches and between draws of one cache, by arm, family and setting."""
    rows = results.rows("luck")
    lines = []
    for names, group in groups(rows, ["arm", "cache", "n", "d", "rho", "size"]):
        errors = group.pivot(index=["seed", "head"], columns="draw", values="error").to_numpy(dtype=float)
        found = components(np.log(errors))
        spread = [number(float(np.sqrt(variance))) for variance in (found.between, found.within)]
        counts = f"{errors.shape[0]} × {errors.shape[1]}"
        arm = model_of(rows, names["arm"])
        lines.append([arm, names["cache"], setting(names), *spread, interval(found.share), counts])
    head = ["Between caches", "Between draws", "Share of the cache in the variance, 95 %", "Caches × draws"]
    note = (
        "Standard deviations of log error. A share of 0: another cache is no more luck than another coreset of the same"
        " cache.\n\n"
    )
    return note + table([ARM, "Family", "At", *head], lines)
