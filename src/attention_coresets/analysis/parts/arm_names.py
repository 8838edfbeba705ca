"""How tables name an arm, and what the table of arms says of it."""

import pandas as pd

from attention_coresets.analysis.stats.frames import distinct
from attention_coresets.coresets.arms import ARMS, RULE

ARM = "Arm (coreset model)"


def model_of(rows: pd.DataFrame, arm: str) -> str:
    """The arm with its coreset model, as every table names it."""
    if arm == "sinks_uniform":
        return "sinks_uniform (first tokens kept, the rest reweighted)"
    return f"{arm} ({', '.join(distinct(rows.loc[rows['arm'] == arm], 'model'))})"


def axis_of(arm: str) -> str:
    """What the arm changes of the tilted Gram-Schmidt walk; the rule, where it is not in the table of arms."""
    return ARMS[arm].axis if arm in ARMS else RULE


def is_ours(arm: str) -> bool:
    """Whether the arm is this project's own construction, not a published rule, maybe with our tilt or scale."""
    return arm in ARMS and ARMS[arm].ours
