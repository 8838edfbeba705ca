"""How tables name an arm."""

import pandas as pd

from attention_coresets.analysis.stats.frames import distinct

ARM = "Arm (coreset model)"


def model_of(rows: pd.DataFrame, arm: str) -> str:
    """The arm with its coreset model, as every table names it."""
    if arm == "sinks_uniform":
        return "sinks_uniform (first tokens kept, the rest reweighted)"
    return f"{arm} ({', '.join(distinct(rows.loc[rows['arm'] == arm], 'model'))})"
