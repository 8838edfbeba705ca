"""What the pretended GPU counts, by the line of the package that asked for it."""

import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from types import CodeType, FrameType

_PLACES = ("/attention_coresets/", "/benchmarks/", "/transformers/")


@dataclass
class Counts:
    """What a GPU would have had to do, by the line that asked for it; and the device's limits.

    `largest` is the size in bytes of the largest tensor that its memory can take. capability is that of an H100; 8.6 is
    that of a GPU whose float64 is slow.
    """

    launches: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    transfers: Counter[str] = field(default_factory=Counter)
    largest: float = float("inf")
    capability: tuple[int, int] = (9, 0)

    def clear(self) -> None:
        for counter in (self.launches, self.waits, self.transfers):
            counter.clear()

    def __str__(self) -> str:
        parts = (("launches", self.launches), ("waits", self.waits), ("transfers", self.transfers))
        lines = [f"{name}: {sum(found.values())}" for name, found in parts]
        for (_, found), line in zip(parts, list(lines), strict=True):
            lines += [f"  {line.split(':')[0]} {number:7d} {where}" for where, number in found.most_common(8)]
        return "\n".join(lines)


def line_at_work() -> str:
    """The innermost line of the package, or of who uses it, that is at work."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        place = _place(frame.f_code)
        if place:
            return f"{place}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


@cache
def _place(code: CodeType) -> str:
    """Folder and file of what counts as at work, else nothing."""
    name = code.co_filename
    return "/".join(name.split("/")[-2:]) if any(place in name for place in _PLACES) else ""
