"""What a claim expects: a band, in its topic's tolerances.py before its sweep is run, but where `after` says why not.

Git history is the record. Until topics had folders all bands were in analysis/tolerances.py, which `git log -S` and
`git blame -C` look into as well.

A band is what the claim allows. Rivals are the values that another theory would give: only an interval that excludes
them decides. Sources: docs/theory.md, section "predictions", and the bounds proven there and in docs/lower_bound.md.

A band with `pilot` was set by somebody who had seen early measurements of one seed (in comments *: what was seen): it
can confirm them, but it risked less than the others. In block C a band is what the bound allows, one-sided.
"""

from dataclasses import dataclass
from math import inf, isinf


@dataclass(frozen=True)
class Band:
    """Values from low to high confirm a claim; an interval that contains a rival value decides nothing.

    `predicted`: the one value that theory gives, if it gives one; `after`: why a tolerance that was set after a run was
    set then, for the report to say so; `pilot`: early measurements were seen before it was set.
    """

    low: float
    high: float
    rivals: tuple[float, ...] = ()
    text: str = ""
    predicted: float | None = None
    after: str = ""
    pilot: bool = False

    @property
    def decides(self) -> bool:
        """Whether it excludes any value."""
        return not (isinf(self.low) and isinf(self.high))

    @property
    def marked(self) -> str:
        """In words, with the marks that the report explains: † set after a run, ‡ informed by a pilot; the marks alone
        where it excludes nothing."""
        words = (str(self) if self.decides else "", "†" if self.after else "", "‡" if self.pilot else "")
        return " ".join(filter(None, words))

    def __str__(self) -> str:
        if self.text:
            return self.text
        if not self.decides:
            return "none"
        if isinf(self.low):
            return f"≤ {self.high:g}"
        if isinf(self.high):
            return f"≥ {self.low:g}"
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        return f"{middle:.3g} ± {half:.2g}"


def about(value: float, tolerance: float, *rivals: float) -> Band:
    return Band(round(value - tolerance, 9), round(value + tolerance, 9), rivals, predicted=value)


def anything(*, pilot: bool = False) -> Band:
    """No tolerance: the number is told without a verdict."""
    return Band(-inf, inf, pilot=pilot)
