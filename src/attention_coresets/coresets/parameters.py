"""Checks of the parameters that constructions share."""

import math

from attention_coresets.coresets.buckets import RECURSIONS
from attention_coresets.coresets.law import MODELS, SCALES
from attention_coresets.coresets.refinement import check_refinement
from attention_coresets.registry import check_name


def check_axes(
    model: str, scale: str = "auto", recursion: str = "one_walk", refinement: str = "none", ridge: float = 1e-4
) -> None:
    """ValueError, naming the nearest, for an unknown model, scale, recursion or refinement, for a pair of them that
    makes no sense, and for a ridge not above 0."""
    check_name(model, MODELS, "model")
    check_name(scale, SCALES, "scale")
    check_name(recursion, RECURSIONS, "recursion")
    check_refinement(model, refinement)
    if not (math.isfinite(ridge) and ridge > 0):
        raise ValueError(f"ridge must be above 0, got {ridge}: near-duplicate keys make the Gram matrix singular")
