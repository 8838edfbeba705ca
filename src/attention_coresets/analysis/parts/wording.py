"""Measured numbers as words of a sentence: spans, lists, counts, and the parts of a claim."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

from attention_coresets.analysis.parts.markdown import interval, number
from attention_coresets.analysis.parts.measured import Measured
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.verdict import Check, Claim, measured
from attention_coresets.analysis.stats.estimates import Estimate


def claimed(claims: Iterable[Claim | Check], results: Results, claim_id: str) -> list[Measured]:
    """What one of the claims or checks measured, setting by setting; settings without a value are left out. KeyError
    where none has this id."""
    claim = {claim.id: claim for claim in claims}[claim_id]
    return [part for part in measured(claim, results) if part.estimate.caches]


def span(found: Sequence[Measured]) -> str:
    """ "1.02 [0.97, 1.08] to 1.1 [1, 1.2] (2 settings)", the least and the greatest; one estimate as it is."""
    words = extremes([part.estimate for part in found])
    return words if len(found) == 1 else f"{words} ({len(found)} settings)"


def extremes(found: Sequence[Estimate]) -> str:
    """The same of estimates, without their number."""
    ordered = sorted(found, key=lambda estimate: estimate.value)
    return interval(ordered[0]) if len(found) == 1 else f"{interval(ordered[0])} to {interval(ordered[-1])}"


def between(values: Iterable[float]) -> str:
    """ "47.6 to 47.7", the least and the greatest, without intervals; one number where both read alike."""
    ordered = sorted(values)
    low, high = number(ordered[0]), number(ordered[-1])
    return low if low == high else f"{low} to {high}"


def listed(words: Iterable[object]) -> str:
    """ "a", "a and b", "a, b and c"."""
    *rest, last = [str(word) for word in words]
    return f"{', '.join(rest)} and {last}" if rest else last


def code(names: Iterable[str]) -> str:
    """The same of names set as code."""
    return listed(f"`{name}`" for name in names)


def pattern(names: Sequence[str], every: Iterable[str]) -> str:
    """The same, as `begin*end` where that is said of just these of every name, more than three."""
    begin = _shared(names)
    end = _shared([name[len(begin) :][::-1] for name in names])[::-1]
    there = {name for name in every if name.startswith(begin) and name.endswith(end)}
    return f"`{begin}*{end}`" if len(names) > 3 and there == set(names) else code(names)


def _shared(names: Sequence[str]) -> str:
    """The letters with which all names begin."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in alike)


def tally(found: Mapping[str, bool]) -> str:
    """Of how many it is so: "all 9", "8 of 9 (not `snapkv`)", "none of 9"."""
    missing = [name for name, so in found.items() if not so]
    if not missing:
        return f"all {len(found)}"
    held = len(found) - len(missing)
    return f"{held} of {len(found)} (not {code(missing)})" if held else f"none of {len(found)}"


def tallies(found: Mapping[str, Mapping[str, bool]]) -> str:
    """Place → name → whether it is so there: "all 9 at 1/16, 8 of 9 at 1/8 (not `snapkv`)"; where it is so of all at
    each place "all 9 at every size"."""
    counts = {place: tally(names) for place, names in found.items()}
    if len(set(counts.values())) == 1 and all(all(names.values()) for names in found.values()):
        return f"{next(iter(counts.values()))} at every size"
    return ", ".join(f"{count} at {place}" for place, count in counts.items())
