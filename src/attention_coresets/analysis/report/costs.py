"""What benchmarks/results says of a construction's time and memory."""

import json
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from attention_coresets.analysis.parts.results import ResultsError

_AT = {"n": 4096, "m": 256, "d": 16}  # where the memory of all is measured


@dataclass(frozen=True)
class Cost:
    """exponent: of the time in n, infinite where it was not fitted; memory in bytes beyond the input."""

    exponent: float
    memory: int | None


@dataclass(frozen=True)
class Stream:
    """A stream that was measured."""

    case: str
    n: int
    seconds: float
    memory: int | None


@dataclass(frozen=True)
class Speed:
    """Of an arm of the league, the least and the largest over the numbers of dimensions measured: seconds a head, and
    how many times faster than the tilted walk in the same rounds."""

    seconds: tuple[float, float]
    times: tuple[float, float]


def speeds(folder: Path) -> dict[str, Speed]:
    """Each arm that was timed beside the walk."""
    rows = _part(folder, "arms")["rows"]
    walk = {row["d"]: row["seconds"] for row in rows if row["case"] == "walk_tilted"}
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        found.setdefault(row["case"], []).append((row["seconds"] / row["heads"], walk[row["d"]] / row["seconds"]))
    return {arm: Speed(*((min(each), max(each)) for each in zip(*mine, strict=True))) for arm, mine in found.items()}


def costs(folder: Path) -> dict[str, Cost]:
    """Each construction that was measured, by the benchmark's name of it, from the full run of the first machine."""
    part = _part(folder, "constructions")
    exponents = {
        fit["construction"]: fit["exponent"]
        for fit in part["fits"]
        if fit["quantity"] == "time" and fit["variable"] == "n" and "exponent" in fit
    }
    return {
        row["case"]: Cost(exponents.get(row["case"], inf), row["memory"])
        for row in part["rows"]
        if all(row[name] == value for name, value in _AT.items())
    }


def streamed(folder: Path) -> Stream | None:
    """The longest stream measured."""
    rows = [row for row in _part(folder, "streaming")["rows"] if row["seconds"] is not None]
    if not rows:
        return None
    row = max(rows, key=lambda row: row["n"])
    return Stream(row["case"].removeprefix("stream, "), row["n"], row["seconds"], row["memory"])


def _part(folder: Path, name: str) -> dict[str, Any]:
    """A part of the benchmark; one without rows where none was run."""
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["tier"] == "full" and name in content["parts"]:
                return content["parts"][name]
        except (KeyError, TypeError, ValueError) as reason:
            raise ResultsError(f"{path} is damaged ({reason}): run `python benchmarks/run.py` again") from reason
    return {"rows": [], "fits": []}
