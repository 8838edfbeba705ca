"""Says how far two runs of a construction may differ by rounding: in another batch, order or processor."""

from enum import StrEnum

DIGITS = 1e-12  # log-weights of class TOKENS, relative to max(1, |log-weight|)
# attention over coresets of class TIES, in units of the largest value norm; at first it was to hold of the weights
# themselves, which the first run under other rounding contradicted where keys are equal (5e-6)
SOLVED = 1e-6
WITHIN = 0.02  # worst-case errors of class ERROR, relative; like DIGITS set before it was measured


class Agreement(StrEnum):
    """What is the same wherever the same caches, seeds and parameters are run.

    TOKENS: the tokens, and log-weights within `DIGITS`. For rules that balance, draw or score.
    TIES: the tokens, but where two are equally good up to rounding; and what attention over them gives, within
    `SOLVED`. Weights themselves may differ, for they solve a system that may have many solutions. For rules that look,
    token by token, for the best one, and for fitted weights.
    ERROR: the worst-case error, within the share `WITHIN`. For rules that follow worst queries found by ascent, where
    rounding can lead to another query and so to other tokens.
    """

    TOKENS = "tokens"
    TIES = "ties"
    ERROR = "error"


def of_refinement(model: str, refinement: str) -> Agreement:
    """Returns the class of a balancing rule's coreset after its refinement, in its model."""
    if refinement not in ("none", "kernel_swaps", "round_swaps"):
        return Agreement.ERROR
    return Agreement.TOKENS if refinement == "none" and model != "free" else Agreement.TIES
