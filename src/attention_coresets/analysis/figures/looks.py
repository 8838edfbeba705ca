"""Which colour, marker and name each arm has in every figure."""

from collections.abc import Iterable
from dataclasses import dataclass

TILTED, UNWEIGHTED = "#0173b2", "#de8f05"


@dataclass(frozen=True)
class Look:
    """How an arm is named and drawn. Triangles stay free: they mean censored."""

    label: str
    color: str
    marker: str


LOOKS = {
    "walk_tilted": Look("Gram–Schmidt walk (tilted)", TILTED, "o"),
    "walk_unweighted": Look("Gram–Schmidt walk (unweighted)", UNWEIGHTED, "s"),
    "halving_unweighted": Look("Gram–Schmidt halving (unweighted)", "#029e73", "D"),
    "halving_tilted": Look("Gram–Schmidt halving (tilted)", "#56b4e9", "h"),
    "uniform": Look("uniform (unweighted)", "#d55e00", "X"),
    "tilted_draws": Look("p* draws (tilted)", "#cc78bc", "P"),
    "sinks_uniform": Look("sinks + uniform (reweighted)", "#029e73", "D"),
    "paired_coin": Look("paired coin (unweighted)", "#949494", "X"),
    "self_balancing_tilted": Look("self-balancing walk (tilted)", "#56b4e9", "p"),
    "self_balancing_unweighted": Look("self-balancing walk (unweighted)", "#ca9161", "p"),
    "kernel_halving_tilted": Look("kernel halving (tilted)", "#56b4e9", "d"),
    "kernel_halving_unweighted": Look("kernel halving (unweighted)", "#ca9161", "d"),
    "self_balancing_c1_tilted": Look("self-balancing walk, c = 1 (tilted)", "#56b4e9", "H"),
    "walk_tilted_scale_one": Look("Gram–Schmidt walk, scale 1 (tilted)", "#56b4e9", "<"),
    "walk_tilted_scale_rho": Look("Gram–Schmidt walk, scale ρ (tilted)", "#56b4e9", "<"),
    "walk_tilted_scale_inv_sqrt_d": Look("Gram–Schmidt walk, scale 1/√d (tilted)", "#56b4e9", "<"),
    "greedy_tilted": Look("greedy signs (tilted)", "#56b4e9", "*"),
    "greedy_unweighted": Look("greedy signs (unweighted)", "#ca9161", "*"),
}


def look(arm: str) -> Look:
    """The look of an arm; one that is not listed is grey and keeps its name."""
    return LOOKS.get(arm, Look(arm, "0.55", "8"))


def in_order(arms: Iterable[str]) -> list[str]:
    """Arms in the order of LOOKS, unlisted ones last."""
    known = list(LOOKS)
    return sorted(arms, key=lambda arm: (known.index(arm) if arm in known else len(known), arm))
