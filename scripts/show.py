"""What a sweep says: errors, sizes, ratios and laws in the terminal, two figures, and its table as parquet.

python scripts/show.py                                   # what there is
python scripts/show.py NAME                              # a sweep of one's own, by the name it was given or got
python scripts/show.py league --tier reduced             # an experiment, from the tier's committed table
python scripts/show.py NAME --by family,rho --against walk_tilted

Figures and table go to results/own/NAME, those of an experiment to outputs/show/TIER/NAME.
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from attention_coresets.analysis.figures.style import save, style
from attention_coresets.analysis.parts.results import TIERS, ResultsError
from attention_coresets.analysis.show import numbers, pictures, text
from attention_coresets.analysis.show.shown import SETTING, Shown, find, known
from attention_coresets.analysis.show.summary import default_by, heading, width
from attention_coresets.study.disk import StudyError
from attention_coresets.study.table import write_table

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.name is None:
            print("\n".join(f"{tier}: {', '.join(names)}" for tier, names in known(options.results).items()))
            return 0
        shown = find(options.results, options.name, options.tier)
        print(heading(shown))
        if shown.rows.empty:
            print(f"\n{text.others(shown.others, width())}")
            return 0
        by, against = _by(options.by, shown), _against(options.against, shown)
        _tell(shown, by, against, shown.folder(options.results, options.outputs))
    except (ResultsError, StudyError) as reason:
        print(f"show: {reason}", file=sys.stderr)
        return 2
    return 0


def _tell(shown: Shown, by: Sequence[str], against: str, folder: Path) -> None:
    """Print table by table, as each is ready, then write the files."""
    for name, table in (("Errors", text.errors), ("Sizes for an error", text.sizes)):
        print(f"\n== {name}\n{table(shown, by, width())}", flush=True)
    print(f"\n== Ratios\n{text.ratios(shown, against, width())}", flush=True)
    try:
        records = numbers.laws(shown.rows)
        words = text.laws(records, shown, width())
    except ValueError as reason:
        records, words = [], f"no laws: {reason}"
    print(f"\n== Laws of the size\n{words}\n", flush=True)
    rows, panels = pictures.drawn(shown, by)
    with style():
        figures = {"errors": pictures.errors(rows, panels), "sizes": pictures.sizes(rows, panels, records)}
        for name, figure in figures.items():
            if figure is not None:
                print(save(figure, folder, name)[0])
    write_table(shown.rows.drop(columns=["family", "unit"]), folder / "table.parquet")
    print(folder / "table.parquet")


def _by(given: str | None, shown: Shown) -> Sequence[str]:
    if given is None:
        return default_by(shown)
    if unknown := [name for name in given.split(",") if name not in SETTING]:
        raise ResultsError(f"--by {given}: {unknown[0]} is none of {', '.join(SETTING)}")
    return given.split(",")


def _against(given: str | None, shown: Shown) -> str:
    """The arm that others are held against: the best one unless said."""
    ranked = numbers.ranked(numbers.errors(shown.rows, numbers.varying(shown.rows)))
    if given is not None and given not in ranked:
        raise ResultsError(f"--against {given}: no arm of {shown.place.name}; it has {', '.join(ranked)}")
    return given or ranked[0]


def _parser() -> argparse.ArgumentParser:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="of the sweep; left out: all that can be shown are listed")
    parser.add_argument("--tier", choices=TIERS, default="reduced", help="of an experiment")
    parser.add_argument("--by", help=f"columns told apart, of {', '.join(SETTING)}; else those that vary, if few")
    parser.add_argument("--against", metavar="ARM", help="what ratios are over; the best arm unless said")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of the tiers")
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs", help="where an experiment's figures go")
    return parser


if __name__ == "__main__":
    sys.exit(main())
