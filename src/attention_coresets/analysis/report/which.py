"""Which construction to use, for docs/which.md: the league and the benchmarks side by side, and what follows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, isnan
from pathlib import Path

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.arm_names import ARM, model_of
from attention_coresets.analysis.parts.markdown import interval, number, table
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.report.costs import Cost, Speed, costs, speeds, streamed
from attention_coresets.analysis.stats.estimates import Estimate
from attention_coresets.analysis.stats.frames import column, distinct, groups
from attention_coresets.analysis.topics.league import certified
from attention_coresets.analysis.topics.league.standings import EXPERIMENT, MODELS, REFERENCE, places
from attention_coresets.analysis.topics.real_heads import caches
from attention_coresets.coresets.arms import ARMS

PROVEN = ("walk_tilted", "walk_unweighted")  # one walk to the size asked for: docs/theory.md, section Balancing
FASTER = (2, 5)  # times, than the walk
NEARLY_LINEAR = 1.3  # exponent of time in n


@dataclass(frozen=True)
class Line:
    """What is known of an arm. error, certificate: over those of `REFERENCE`."""

    arm: str
    model: str
    error: Estimate
    certificate: Estimate
    speed: Speed | None
    cost: Cost | None

    @property
    def proven(self) -> bool:
        return self.arm in PROVEN


def which(results: Results, benchmarks: Path) -> str:
    """The short answers, then every arm of the league with error, certificate, time, memory and guarantee."""
    lines = _lines(results, benchmarks)
    if not lines:
        return ""
    rows = results.rows(EXPERIMENT)
    where = (
        f"League of tier `{results.tier}`: {rows['cache'].nunique()} families,"
        f" n = {_listed(rows, 'n')}, d = {_listed(rows, 'd')}, ρ = {_listed(rows, 'rho')}, m = {_listed(rows, 'size')}."
    )
    return "\n\n".join([where, _answers(lines, results, benchmarks), "### Every construction", _all(lines, results)])


def _lines(results: Results, benchmarks: Path) -> list[Line]:
    """The league's arms, the least error first."""
    rows = results.rows(EXPERIMENT)
    if rows.empty:
        return []
    known, timed = costs(benchmarks), speeds(benchmarks)
    found = sorted(places(rows, "free"), key=lambda place: place.error.value)
    ceilings = certified.over_reference(results, [place.arm for place in found], REFERENCE)
    return [
        Line(
            place.arm,
            str(rows.loc[rows["arm"] == place.arm, "model"].iloc[0]),
            place.error,
            ceiling,
            timed.get(place.arm),
            known.get(_case(place.arm)),
        )
        for place, ceiling in zip(found, ceilings, strict=True)
    ]


def _case(arm: str) -> str:
    """The benchmark that measured an arm: its construction as it is, or unweighted; of other settings there is none."""
    row = ARMS.get(arm)
    if row is None:
        return ""
    rest = {key: value for key, value in row.parameters.items() if key != "scale"}
    if rest == {"model": "unweighted"} and row.construction != "paired_coin":
        return f"{row.construction}, unweighted"
    return row.construction if rest in ({}, {"model": "unweighted"}) else ""


def _answers(lines: Sequence[Line], results: Results, benchmarks: Path) -> str:
    """What one wants, what to take, and the numbers that say so."""
    walk = next(line for line in lines if line.arm == REFERENCE)
    long = [line for line in lines if line.cost is not None and line.cost.exponent <= NEARLY_LINEAR]
    found = [
        ("the least error, weights of any kind", _first(lines)),
        *((f"the same, {model} weights only", _first(_of_model(lines, model))) for model in MODELS[1::-1]),
        ("a bound that holds before anything is run", walk),
        *(
            (f"an answer at least {times} times faster than the walk's", _first(_faster(lines, times)))
            for times in FASTER
        ),
        ("time that grows nearly as n, up to n = 4096 (beyond: `two_stage`)", _first(long)),
    ]
    rows = [[want, f"`{line.arm}`", _why(line)] for want, line in found if line is not None]
    return table(["You want", "Take", "Because"], [*rows, *_least_ceiling(results), *_elsewhere(results, benchmarks)])


def _least_ceiling(results: Results) -> list[list[str]]:
    """The arm of the least certificate where those made for one compete."""
    rows = results.rows(certified.EXPERIMENT)
    arms = distinct(rows, "arm")
    found = dict(zip(arms, certified.over_reference(results, arms, REFERENCE, certified.EXPERIMENT), strict=True))
    known = {arm: ratio for arm, ratio in found.items() if ratio.caches}
    if not known:
        return []
    arm = min(known, key=lambda arm: known[arm].value)
    where = (
        f"certificate {interval(known[arm])} times {REFERENCE}'s, on the caches of `experiment={certified.EXPERIMENT}`"
    )
    return [["the least proven ceiling (`find_coreset` tries several)", f"`{arm}`", where]]


def _of_model(lines: Sequence[Line], model: str) -> list[Line]:
    return [line for line in lines if line.model == model]


def _faster(lines: Sequence[Line], times: int) -> list[Line]:
    """Those that are so at every number of dimensions."""
    return [line for line in lines if line.speed is not None and line.speed.times[0] >= times]


def _first(lines: Iterable[Line]) -> Line | None:
    return next(iter(lines), None)


def _why(line: Line) -> str:
    words = [f"error {interval(line.error)}"]
    if line.certificate.caches:
        words.append(f"certificate {interval(line.certificate)}")
    took = "" if line.speed is None else f"; {_time(line.speed)} a head"
    return f"{', '.join(words)} times {REFERENCE}'s{took}"


def _elsewhere(results: Results, benchmarks: Path) -> list[list[str]]:
    """What the league does not answer: streams, and heads of a model whose queries are known."""
    found = []
    if (stream := streamed(benchmarks)) is not None:
        took = f"{_seconds(stream.seconds)} and {_bytes(stream.memory)} beyond the input"
        words = f"{stream.n} tokens in {took}; `two_stage` errs less"
        found.append(["tokens that arrive in blocks", f"`Stream`, `{stream.case}`", words])
    rows = caches.at_share(results.rows(caches.HEADS), caches.SHARE) if len(results.rows(caches.HEADS)) else None
    if rows is not None and len(rows):
        each = {names["arm"]: float(np.median(column(mine, "heldout_mean"))) for names, mine in groups(rows, ["arm"])}
        best = min(each, key=lambda arm: each[arm])
        words = f"median error {number(each[best])} at later queries, 1/{caches.SHARE} of the cache kept"
        found.append(["a model's cache, its queries at hand (to keep facts: `compress_prompt`)", f"`{best}`", words])
    return found


def _all(lines: Sequence[Line], results: Results) -> str:
    rows = results.rows(EXPERIMENT)
    head = [ARM, "Error", "Certificate", "Time a head", "Time grows as", "Memory", "Proven beforehand"]
    body = [
        [
            model_of(rows, line.arm),
            interval(line.error),
            interval(line.certificate) if line.certificate.caches else "–",
            _time(line.speed),
            "–" if line.cost is None or line.cost.exponent == inf else f"n^{line.cost.exponent:.2g}",
            "–" if line.cost is None else _bytes(line.cost.memory),
            "yes" if line.proven else "no",
        ]
        for line in lines
    ]
    about = (
        f"Error and certificate are divided by those of {REFERENCE} on the same caches: geometric means with 95 %"
        f" intervals. Certificates are those of `experiment={certified.COMPARED}`. Times are from"
        " `benchmarks/run.py --full`: a head, three together, in one thread, of the numbers of dimensions above, each"
        " arm beside the walk in the same rounds; growth and memory too, memory at n = 4096, m = 256, d = 16; a"
        " dash: not measured at this setting. Proven beforehand: docs/theory.md bounds the error with its constant."
        " Every coreset can be certified afterwards: `worst_query(..., certify=True)`."
    )
    return f"{table(head, body)}\n\n{about}"


def _listed(rows: pd.DataFrame, name: str) -> str:
    return ", ".join(f"{value:g}" for value in distinct(rows, name))


def _time(speed: Speed | None) -> str:
    """From the least to the largest over the numbers of dimensions."""
    if speed is None:
        return "–"
    least, largest = map(_seconds, speed.seconds)
    return least if least == largest else f"{least} to {largest}"


def _seconds(value: float | None) -> str:
    if value is None or isnan(value):
        return "–"
    return f"{number(1000 * value)} ms" if value < 1 else f"{number(value)} s"


def _bytes(value: int | None) -> str:
    return "–" if value is None else f"{number(value / 2**20)} MiB"
