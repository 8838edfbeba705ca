"""What the claims of the worst cases found expect, fixed before their runs: see `parts.band`."""

from math import inf

from attention_coresets.analysis.parts.band import Band

BANDS: dict[str, Band] = {
    # ceilings, ascent and branch and bound: not one contradiction
    "no_contradiction": Band(0.0, 0.0, text="0"),
    # issue: kernel certificate over ascent
    "ceiling_one": Band(-inf, 2.0),
    "ceiling_two": Band(-inf, 4.5),
}
