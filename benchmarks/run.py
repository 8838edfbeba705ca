"""Times, memory and errors of this package beside its peers and the machine's limits, measured in one run.

    python benchmarks/run.py                 # about a minute
    python benchmarks/run.py --full          # all sizes, variants and variables, minimax, the stream: half an hour
    python benchmarks/run.py --part walk     # one part, the others' results stay

Prints tables with the project's targets, and writes benchmarks/results/<machine>.json and .md (a quick run:
<machine>.quick.*), figures/benchmarks/ and the numbers of docs/benchmarks.md; --dry prints only. Peers that are not
installed are marked so: `pip install -r requirements-benchmarks.txt`. Stop other work on the machine first.
"""

import argparse
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # in place of benchmarks/ itself, whose files are read as a package

from benchmarks import machine, page, store  # noqa: E402  (needs the path)
from benchmarks.figures import FIGURES, draw  # noqa: E402
from benchmarks.records import Part  # noqa: E402
from benchmarks.tables import aligned, ratios, tables_of  # noqa: E402

PARTS = ("limits", "walk", "halving", "thin", "compress", "adversary", "constructions")
FULL_ONLY = ("arms", "minimax", "streaming", "long", "long_walk", "racing", "prompts")
TIERS = ("smoke", "quick", "full")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    chosen = options.part or [*PARTS, *(FULL_ONLY if options.tier == "full" else ())]
    print(f"{store.words(machine.machine())}; tier {options.tier}\n", flush=True)
    parts = {name: _run(name, options.tier, options.device) for name in chosen}
    every = [one for part in parts.values() for one in part.ratios if one.target]
    print(f"\n== targets\n{aligned(ratios(every))}" if every else "\nno targets in these parts")
    if not options.dry:
        _write(parts, options)
    return 0


def _run(name: str, tier: str, device: str) -> Part:
    start, others = time.perf_counter(), machine.Others()
    measure: Callable[[str, str], Part] = import_module(f"benchmarks.{name}").measure
    part = measure(tier, device)
    part.provenance = machine.how()
    if (warning := others.warning()) is not None:
        part.notes.insert(0, warning)
    print(f"== {name} ({time.perf_counter() - start:.0f} s)")
    for one in tables_of(part):
        print(aligned(one) + "\n")
    print("".join(f"- {note}\n" for note in part.notes), flush=True)
    return part


def _write(parts: dict[str, Part], options: argparse.Namespace) -> None:
    described = machine.machine()
    measured = store.Measured(machine.slug(described), described, options.tier, parts)
    path = store.save(options.results, measured)
    made = draw(store.load(path), options.figures)
    print(f"written: {path.name}, {path.with_suffix('.md').name}, {', '.join(p.name for p in made)}")
    kept_elsewhere = options.results.resolve() != store.RESULTS
    target = options.page or (None if kept_elsewhere else page.PAGE)
    if target is not None:
        target.write_text(
            page.filled(target.read_text(encoding="utf-8"), store.load_all(options.results)), encoding="utf-8"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", dest="tier", action="store_const", const="full", default="quick")
    parser.add_argument("--tier", choices=TIERS, help="smoke shows that all runs and measures nothing")
    parser.add_argument("--part", action="append", choices=(*PARTS, *FULL_ONLY), help="can be repeated")
    parser.add_argument("--device", default="cpu", help="scripts/gpu.sh is what measures a GPU")
    parser.add_argument("--results", type=Path, default=store.RESULTS)
    parser.add_argument("--figures", type=Path, default=FIGURES)
    parser.add_argument("--page", type=Path, help="default: docs/benchmarks.md, unless --results is another folder")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
