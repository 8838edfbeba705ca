"""What the steps found, a JSON object a line, written at once: what a run that is cut short leaves behind counts."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu import PREFIX
from benchmarks.records import Part, Ratio, Row

Found = Row | Ratio | str  # a string is a note
_TIMED_OUT = (124, 137)  # `timeout` ended it, by its first signal or by its last


def path_of(folder: Path, tier: str) -> Path:
    """Where a run's journal lies."""
    return folder / ("gpu.jsonl" if tier == "full" else f"gpu.{tier}.jsonl")


def write(path: Path, step: str, kind: str, content: Any) -> None:
    """Appends one line; a number that JSON does not know is refused."""
    with path.open("a", encoding="utf-8") as journal:
        journal.write(json.dumps({"step": step, "kind": kind, "content": content}, allow_nan=False) + "\n")


def record(path: Path, step: str, found: Found) -> None:
    """Appends what a step found."""
    if isinstance(found, str):
        write(path, step, "note", found)
    else:
        write(path, step, "row" if isinstance(found, Row) else "ratio", asdict(found))


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The journal's lines; the last one may be half written, where the machine was taken away, and is left out."""
    text = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(text, 1):
        try:
            yield json.loads(line)
        except ValueError as reason:
            if number < len(text):
                raise ValueError(f"{path}, line {number}: {reason}") from reason


def gathered(path: Path) -> tuple[dict[str, Any], dict[str, Part]]:
    """The machine and a part a step, from a journal; ValueError where no step began."""
    parts: dict[str, Part] = {}
    machine: dict[str, Any] | None = None
    ends: dict[str, dict[str, Any]] = {}
    for line in lines(path):
        step, kind, content = PREFIX + line["step"], line["kind"], line["content"]
        if kind == "ended":
            ends[step] = content
        elif kind == "began":
            machine, parts[step] = content["machine"], Part(provenance=content["provenance"])
        else:
            _add(parts[step], kind, content)
    if machine is None:
        raise ValueError(f"{path}: no step began, there is nothing to gather")
    anyone = next(iter(parts.values())).provenance
    for step, content in ends.items():  # the tests are pytest's own, and some steps are skipped: they have no rows
        parts.setdefault(step, Part(provenance=anyone)).notes.append(_ending(content))
    return machine, parts


def _add(part: Part, kind: str, content: Any) -> None:
    if kind == "row":
        part.rows.append(Row(**content))
    elif kind == "ratio":
        part.ratios.append(Ratio(**content))
    else:
        part.notes.append(content)


def _ending(content: dict[str, Any]) -> str:
    """ "done in 12 s", "TIMED OUT after 60 s", "FAILED with code 1 after 3 s", or why the step did not run."""
    code, seconds, words = content["code"], content["seconds"], content["words"]
    if code is None:
        return words
    rest = f": {words}" if words else ""
    if code in _TIMED_OUT:
        return f"TIMED OUT after {seconds} s{rest}"
    return f"FAILED with code {code} after {seconds} s{rest}" if code else f"done in {seconds} s{rest}"
