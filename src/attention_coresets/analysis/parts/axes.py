"""The axes of the ablation, read off an arm's label: what it changes of the tilted Gram-Schmidt walk."""

OURS = "minimax"  # what the labels of our own arms begin with
RULE, RECURSION, REFINEMENT, SCALE, OWN = "balancing rule", "recursion", "refinement", "kernel scale", "our own"
AXES = (RULE, RECURSION, REFINEMENT, SCALE, OWN)
# what a label holds where its arm changes another axis than the rule: the first that fits
_PARTS = {
    OURS: OWN,
    "kernel_swaps": REFINEMENT,
    "refit": REFINEMENT,
    "compress": RECURSION,
    "merge_reduce": RECURSION,
    "scale": SCALE,
}


def axis_of(arm: str) -> str:
    """The axis that an arm changes, as its label says: the rule (or the model alone), unless it names another."""
    if arm.startswith("halving_"):  # of the Gram-Schmidt walk; kernel_halving is a rule
        return RECURSION
    return next((axis for part, axis in _PARTS.items() if part in arm), RULE)


def not_ours(arm: str) -> bool:
    """Whether the arm is no minimax coreset: a published rule, maybe with this project's tilt, scale or combination."""
    return not arm.startswith(OURS)
