"""What a benchmark writes down: rows (one thing measured), ratios (two of them compared), fits (exponents of cost)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

OURS, PEER, LIMIT = "ours", "peer", "limit"


@dataclass(frozen=True)
class Row:
    """One task at one size. seconds: median over `repeats`, fastest to slowest beside it; None where it did not run.

    rate in operations a second where the count of operations is known; memory in bytes: the peak beyond the input, in a
    process of its own; error: what `error_kind` says. note: why something is missing.
    """

    case: str
    who: str
    n: int
    m: int | None = None
    d: int | None = None
    heads: int = 1
    seconds: float | None = None
    fastest: float | None = None
    slowest: float | None = None
    repeats: int = 0
    rate: float | None = None
    memory: int | None = None
    error: float | None = None
    error_kind: str = ""
    note: str = ""


@dataclass(frozen=True)
class Target:
    """A bound on a ratio that the project has set itself: at most, or at least."""

    bound: float
    at_most: bool = True

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.bound:g}"

    def met(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound


@dataclass(frozen=True)
class Ratio:
    """A comparison: the median over rounds of the ratio within a round, lowest and highest beside it."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    target: str = ""
    verdict: str = ""
    note: str = ""


@dataclass
class Part:
    """What one part of the benchmark found; provenance says when and with which code and versions."""

    rows: list[Row] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    fits: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Part":
        rows, ratios = [Row(**x) for x in content["rows"]], [Ratio(**x) for x in content["ratios"]]
        return cls(rows, ratios, content["fits"], content["notes"], content["provenance"])


def timed_row(case: str, who: str, seconds: Sequence[float], n: int, *, operations: float | None = None, **rest) -> Row:
    """A row from the repeats' seconds; `operations` in one repeat give the rate."""
    middle = median(seconds)
    spread = {"seconds": middle, "fastest": min(seconds), "slowest": max(seconds), "repeats": len(seconds)}
    return Row(case, who, n, rate=operations / middle if operations else None, **spread, **rest)


def ratio(
    name: str, above: Sequence[float], below: Sequence[float], *, factor: float = 1.0, target: Target | None = None
) -> Ratio:
    """factor * above / below, round by round: the two were measured side by side in each."""
    each = [factor * a / b for a, b in zip(above, below, strict=True)]
    middle = median(each)
    verdict = "" if target is None else "pass" if target.met(middle) else "miss"
    return Ratio(name, middle, min(each), max(each), "" if target is None else str(target), verdict)


def single(name: str, value: float, target: Target | None = None) -> Ratio:
    """A figure measured once, against its target where it has one."""
    if target is None:
        return Ratio(name, value)
    return Ratio(name, value, target=str(target), verdict="pass" if target.met(value) else "miss")


def missing(name: str, target: Target | None, why: str) -> Ratio:
    """A comparison that could not be made."""
    return Ratio(name, None, target="" if target is None else str(target), verdict="not run", note=why)


def with_memory(part: Part, peaks: Sequence[int | None]) -> None:
    """Gives each row of the part its peak."""
    part.rows[:] = [replace(row, memory=peak) for row, peak in zip(part.rows, peaks, strict=True)]
