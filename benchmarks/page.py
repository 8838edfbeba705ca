"""docs/benchmarks.md: its numbers, between `<!-- numbers:NAME -->` and `<!-- /numbers:NAME -->`, from the results."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from attention_coresets.analysis.parts.markdown import fill
from benchmarks import study_time
from benchmarks.gpu import PREFIX, predicted
from benchmarks.records import LIMIT, Row
from benchmarks.store import Measured, provenance, words
from benchmarks.tables import Table, fits, markdown, ratios, rows

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
OWN = ("arms", "long", "long_walk", "racing", "prompts")  # parts with a block of their own, or for docs/which.md
NOTHING = "No results yet: run `python benchmarks/run.py`."


def filled(text: str, results: Sequence[Measured]) -> str:
    """The page with every block made anew."""
    blocks = {name: _block(make, results) for name, make in BLOCKS.items()}
    return fill(text, blocks | {"gpu": _on_gpu(results), "study_time": study_time.words()})


def _block(make: Callable[[Measured], str], results: Sequence[Measured]) -> str:
    """Machine after machine, each under its name."""
    found = [(one, text) for one in results if (text := make(one))]
    return "\n\n".join(f"**{words(one.machine)}** (tier {one.tier})\n\n{text}" for one, text in found) or NOTHING


def _machines(measured: Measured) -> str:
    """Which part was measured when and with what; parts measured alike share a line."""
    alike: dict[str, list[str]] = {}
    for name, part in measured.parts.items():
        alike.setdefault(provenance(part), []).append(name)
    return "\n".join(f"- {', '.join(names)}: {how}" for how, names in alike.items())


def _targets(measured: Measured) -> str:
    return _table(ratios(one for part in measured.parts.values() for one in part.ratios if one.target))


def _peers(measured: Measured) -> str:
    parts = (part for name, part in measured.parts.items() if name not in OWN)
    return _table(ratios(one for part in parts for one in part.ratios if not one.target))


def _limits(measured: Measured) -> str:
    part = measured.parts.get("limits")
    return "" if part is None else _table(rows([row for row in part.rows if row.who == LIMIT]))


def _errors(measured: Measured) -> str:
    """Seconds, memory and error of ours and of the peers at the sizes that have an error."""
    names = ("walk", "halving", "thin", "compress", "minimax")
    found: list[Row] = [
        row
        for name in names
        if name in measured.parts
        for row in measured.parts[name].rows
        if row.error is not None or row.note
    ]
    return _table(rows(found))


def _constructions(measured: Measured) -> str:
    part = measured.parts.get("constructions")
    return "" if part is None else _table(fits(part.fits))


def _times(measured: Measured) -> str:
    """Each construction at the largest n that all who were measured there share, 4096 by design."""
    part = measured.parts.get("constructions")
    if part is None:
        return ""
    with_errors = [row for row in part.rows if row.error is not None and row.n == 4096]
    return _table(rows(sorted(with_errors, key=lambda row: row.error or 0.0)))


def _on_gpu(results: Sequence[Measured]) -> str:
    """What scripts/gpu.sh measured, or that nothing was; and what was expected."""
    measured = _block(_gpu, results)
    found = "Not measured: no GPU was at hand yet." if measured == NOTHING else measured
    return f"{found}\n\n{predicted.words()}\n\n{markdown(predicted.table())}"


def _gpu(measured: Measured) -> str:
    """Step by step its rows and what it noted, but for profiles, which are in the results' own tables."""
    texts = []
    for name, part in measured.parts.items():
        if name.startswith(PREFIX):
            notes = "\n".join(f"- {note}" for note in part.notes if "\n" not in note)
            texts += [f"*{name.removeprefix(PREFIX)}*", _table(rows(part.rows)), notes]
    return "\n\n".join(text for text in texts if text)


def _whole(name: str, measured: Measured) -> str:
    """A part's rows, ratios and notes."""
    part = measured.parts.get(name)
    if part is None:
        return ""
    notes = "\n".join(f"- {note}" for note in part.notes)
    return "\n\n".join(text for text in (_table(rows(part.rows)), _table(ratios(part.ratios)), notes) if text)


def _table(content: Table) -> str:
    return markdown(content) if content[1] else ""


BLOCKS: dict[str, Callable[[Measured], str]] = {
    "machines": _machines,
    "targets": _targets,
    "peers": _peers,
    "limits": _limits,
    "errors": _errors,
    "long": partial(_whole, "long"),
    "long_walk": partial(_whole, "long_walk"),
    "racing": partial(_whole, "racing"),
    "prompts": partial(_whole, "prompts"),
    "times": _times,
    "constructions": _constructions,
}
