"""results/<machine>.json (a quick run: <machine>.quick.json): the machine, and each part with its own provenance."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from attention_coresets.study.disk import write_atomically
from benchmarks.records import Part
from benchmarks.tables import markdown, tables_of

RESULTS = Path(__file__).resolve().parent / "results"


class Measured(NamedTuple):
    """One machine's results."""

    name: str
    machine: dict[str, Any]
    tier: str
    parts: dict[str, Part]


def path_of(folder: Path, name: str, tier: str) -> Path:
    """Where one machine's results of a tier lie."""
    return folder / f"{name}.json" if tier == "full" else folder / f"{name}.{tier}.json"


def save(folder: Path, measured: Measured) -> Path:
    """Writes the JSON and its tables as Markdown; parts that were not measured now stay as they were."""
    path = path_of(folder, measured.name, measured.tier)
    parts = (load(path).parts if path.exists() else {}) | measured.parts
    content = {"machine": measured.machine, "tier": measured.tier}
    folder.mkdir(parents=True, exist_ok=True)
    whole = content | {"parts": {name: part.as_dict() for name, part in parts.items()}}
    write_atomically(path, json.dumps(whole, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    write_atomically(path.with_suffix(".md"), _tables(measured._replace(parts=parts)))
    return path


def load(path: Path) -> Measured:
    """The results in one file; ValueError, naming it, where it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = {name: Part.from_dict(part) for name, part in content["parts"].items()}
        return Measured(path.name.split(".")[0], content["machine"], content["tier"], parts)
    except (KeyError, TypeError, ValueError) as reason:
        raise ValueError(f"{path} is no benchmark result ({reason}); run `python benchmarks/run.py` again") from reason


def load_all(folder: Path) -> list[Measured]:
    """Every machine's results by name, each part of the full run where there is one and else of the quick one."""
    found: dict[str, Measured] = {}
    for one in sorted((load(path) for path in folder.glob("*.json")), key=lambda one: one.tier == "full"):
        if one.tier in ("quick", "full"):
            earlier = found[one.name].parts if one.name in found else {}
            tier = "quick and full" if earlier.keys() - one.parts.keys() else one.tier
            found[one.name] = one._replace(tier=tier, parts=earlier | one.parts)
    return [found[name] for name in sorted(found)]


def words(machine: dict[str, Any]) -> str:
    """ "Intel(R) Xeon(R) Processor, 2 cores, 23 GiB, no GPU"."""
    gpu = machine["gpu"] or "no GPU"
    return f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {gpu}"


def provenance(part: Part) -> str:
    """When, with which code and versions a part was measured, in one line."""
    how = part.provenance
    dirty = " with uncommitted changes" if how["dirty"] else ""
    packages = ", ".join(f"{name} {how[name]}" for name in ("torch", "numpy", "numba", "goodpoints") if how[name])
    return (
        f"{how['date']}, revision {how['revision'][:12]}{dirty}, Python {how['python']}, {packages}, {how['blas']},"
        f" {how['threads']} threads"
    )


def _tables(measured: Measured) -> str:
    parts = [f"# {words(measured.machine)}: benchmarks, tier {measured.tier}"]
    for name, part in measured.parts.items():
        parts += [f"## {name}", provenance(part), *(markdown(one) for one in tables_of(part))]
        parts += ["\n".join(f"- {note}" for note in part.notes)] if part.notes else []
    return "\n\n".join(parts) + "\n"
