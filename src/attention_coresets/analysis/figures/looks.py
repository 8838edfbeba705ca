"""Which colour, marker and name each arm has in every figure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import seaborn
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attention_coresets.coresets.arms import ARMS, FREE, GREY, TILTED, UNWEIGHTED

MODEL_COLORS = {"unweighted": UNWEIGHTED, "tilted": TILTED, "free": FREE}
MODEL_MARKERS = {"unweighted": "s", "tilted": "o", "free": "D"}


@dataclass(frozen=True)
class Look:
    """How an arm is named and drawn. Triangles stay free: they mean censored."""

    label: str
    color: str
    marker: str


def look(arm: str) -> Look:
    """The look of an arm; one that is not in the table of arms is grey and keeps its name."""
    row = ARMS.get(arm)
    return Look(row.title, row.color, row.marker) if row else Look(arm, GREY, "8")


def looks(arms: Iterable[str]) -> dict[str, Look]:
    """Looks that tell the arms of one picture apart: where two would have the same colour, the later one gets another,
    and so does one that is not in the table."""
    found: dict[str, Look] = {}
    free = seaborn.color_palette("colorblind").as_hex()
    for arm in in_order(arms):
        own = look(arm)
        taken = {known.color for known in found.values()}
        left = [color for color in free if color not in taken]
        odd = own.color in taken or own.color == GREY
        found[arm] = replace(own, color=left[0]) if odd and left else own
    return found


def family(cache: str) -> str:
    """How figures name a family of caches."""
    return cache.replace("_", " ")


def in_order(arms: Iterable[str]) -> list[str]:
    """Arms in the order of their table, unlisted ones last."""
    known = list(ARMS)
    return sorted(arms, key=lambda arm: (known.index(arm) if arm in known else len(known), arm))


def model_legend(figure: Figure, models: Iterable[str]) -> None:
    """A legend below the panels of the coreset models' colours and markers."""
    shown = [model for model in MODEL_COLORS if model in set(models)]
    marks = [Line2D([], [], color=MODEL_COLORS[model], marker=MODEL_MARKERS[model]) for model in shown]
    figure.legend(marks, shown, loc="outside lower center", ncols=len(shown))
