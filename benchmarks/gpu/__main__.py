"""One step of scripts/gpu.sh, or the table of all that were run.

python -m benchmarks.gpu walks --tier smoke --device cpu --results FOLDER
python -m benchmarks.gpu table --tier smoke --results FOLDER    # writes FOLDER/<machine>.smoke.json and .md
"""

import argparse
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import torch

from benchmarks import machine
from benchmarks.gpu import journal

STEPS = (
    "device",
    "kernels",
    "walks",
    "halvings",
    "ascents",
    "certificates",
    "refinements",
    "cells",
    "llama",
    "profiles",
)
TIERS = ("smoke", "full")
NO_DEVICE = 3  # exit code


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    path = journal.path_of(options.results, options.tier)
    if options.step == "table":
        return _table(path, options)
    if options.device != "cpu" and not torch.cuda.is_available():
        print(f"gpu: torch {torch.__version__} sees no CUDA device here; --smoke runs on the CPU", file=sys.stderr)
        return NO_DEVICE
    described = {"machine": machine.machine(), "provenance": machine.how()}
    journal.write(path, options.step, "began", described)
    measure: Callable[[str, str], Iterator[journal.Found]] = import_module(f"benchmarks.gpu.{options.step}").measure
    try:
        for found in measure(options.tier, options.device):
            print(found, flush=True)
            journal.record(path, options.step, found)
    except Exception as reason:  # the other steps still run: what went wrong stands in the results, the rest in the log
        journal.record(path, options.step, f"{type(reason).__name__}: {' '.join(str(reason).split())[:300]}")
        traceback.print_exc()
        return 1
    return 0


def _table(path: Path, options: argparse.Namespace) -> int:
    from benchmarks import page, store  # pandas and its like, which no step needs
    from benchmarks.tables import aligned, tables_of

    described, parts = journal.gathered(path)
    for name, part in parts.items():
        print(f"\n== {name}", *map(aligned, tables_of(part)), *(f"- {note}" for note in part.notes), sep="\n")
    written = store.save(options.results, store.Measured(machine.slug(described), described, options.tier, parts))
    print(f"\nwritten: {written}")
    if options.tier == "full" and options.results.resolve() == store.RESULTS:
        page.PAGE.write_text(
            page.filled(page.PAGE.read_text(encoding="utf-8"), store.load_all(store.RESULTS)), encoding="utf-8"
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=(*STEPS, "table"))
    parser.add_argument("--tier", choices=TIERS, default="full")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--results", type=Path, default=Path(__file__).parents[1] / "results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
