"""The four blocks that claims are told in: what a claim is held to, and which words may be said of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """A table of claims.

    source: whose word a claim is held to, the head of its column. about: the rule that is the block's own. best, worst:
    its words for a claim that stands, and for one whose interval misses the tolerance. descriptive: neither is said.
    theorem: a row says what would refute it.
    """

    letter: str
    title: str
    source: str
    about: str
    best: str = "reproduced"
    worst: str = "contradicted"
    descriptive: bool = False
    theorem: bool = False


UPPER = Block(
    "A",
    "The upper bound",
    "Theorem says",
    "The claims are one-sided. Where the theorem speaks of all caches, the maximum over all rows is judged. The"
    " best verdict is *held*: what is true of everything tried may fail on the next cache.",
    best="held",
    theorem=True,
)
LOWER = Block(
    "B",
    "The lower bound, on hard caches",
    "Theorem says",
    "Caches on which the bound is tight: exponents, and the factor between the floor and the best coreset found."
    " That no coreset lies below a floor is a check of the code, at the end of this page.",
    theorem=True,
)
BENIGN = Block(
    "C",
    "Rates on benign families: descriptive",
    "Theorem says",
    "The theorem bounds these rates from one side and predicts none of them. So there is no verdict, whatever the"
    " number: *easier than the bound* if the whole wide interval lies below the bound, else *descriptive*. An exponent"
    " above the bound's over a finite range contradicts nothing, since constants are free; it is marked *above*.",
    descriptive=True,
)
OWN = Block(
    "D",
    "Our own constructions, and real heads",
    "We aimed at",
    "Targets and expectations of this project. No theorem stands behind them.",
    best="target met",
    worst="target missed",
)
BLOCKS = (UPPER, LOWER, BENIGN, OWN)
