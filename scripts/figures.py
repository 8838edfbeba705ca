"""Draws the figures of a tier from its results: results/<tier>/ -> figures/<tier>/NAME.png and NAME.pdf.

    python scripts/figures.py --tier reduced
    python scripts/figures.py --tier quick --name headline --name constant

A figure whose experiment is not in the table is skipped, and said so.
Exit code 2 where the table is missing or damaged.
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import argparse
import sys
from pathlib import Path

from attention_coresets.analysis.figures.style import save, style
from attention_coresets.analysis.parts.results import TIERS, ResultsError, load
from attention_coresets.analysis.parts.topic import HEADS_FILE
from attention_coresets.analysis.report.gallery import FIGURES, draw

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        results = load(options.results / options.tier)
    except ResultsError as reason:
        print(f"figures: {reason}", file=sys.stderr)
        return 2
    for name in options.name or FIGURES:
        experiment, _ = FIGURES[name]
        if results.heads is None if experiment == HEADS_FILE else results.rows(experiment).empty:
            missing = HEADS_FILE if experiment == HEADS_FILE else f"rows of experiment={experiment}"
            print(f"{name}: skipped, tier {options.tier} has no {missing}")
            continue
        try:
            with style():
                png, _ = save(draw(name, results), options.figures / options.tier, name)
        except OSError as reason:
            print(f"figures: cannot write to {options.figures}: {reason.strerror}; make it writable", file=sys.stderr)
            return 2
        print(f"{name}: {options.tier}/{png.name} ({png.stat().st_size / 1000:.0f} kB)")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tier", default="reduced", choices=TIERS)
    parser.add_argument("--name", action="append", choices=list(FIGURES), help="this figure only; can be repeated")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of the tiers")
    parser.add_argument("--figures", type=Path, default=ROOT / "figures", help="where the pictures go")
    return parser


if __name__ == "__main__":
    sys.exit(main())
