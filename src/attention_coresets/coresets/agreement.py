"""How far two runs of a construction may differ by rounding alone: in another batch or order, on another processor."""

from enum import StrEnum

DIGITS = 1e-12  # log-weights of class TOKENS, relative to max(1, |log-weight|)
# attention over coresets of class TIES, in units of the largest value norm; at first it was to hold of the weights
# themselves, which the first run under other rounding contradicted where keys are equal (5e-6)
SOLVED = 1e-6
WITHIN = 0.02  # worst-case errors of class ERROR, relative; like DIGITS set before it was measured


class Agreement(StrEnum):
    """What is the same wherever the same caches, seeds and parameters are run.

    TOKENS: the tokens, and log-weights within `DIGITS`. Rules that balance, draw or score.
    TIES: the tokens, but where two are as good as each other up to rounding, and what attention over them gives, within
    `SOLVED`: their weights solve a system that may have many solutions. Rules that look, token by token, for the best
    one, and fitted weights.
    ERROR: the worst-case error, within the share `WITHIN`. Rules that follow worst queries found by ascent, where
    rounding can lead to another query and so to other tokens.
    """

    TOKENS = "tokens"
    TIES = "ties"
    ERROR = "error"


def of_refinement(model: str, refinement: str) -> Agreement:
    """The class of a balancing rule's coreset after its refinement, in its model."""
    if refinement not in ("none", "kernel_swaps"):
        return Agreement.ERROR
    return Agreement.TOKENS if refinement == "none" and model != "free" else Agreement.TIES
