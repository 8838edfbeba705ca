"""Writes a page to look at in a browser, without an account or a network: one file with all its data.

python scripts/page.py --tier reduced                # the study's tier: results/reduced/index.html
python scripts/page.py NAME                          # a sweep of one's own: results/own/NAME/index.html
python scripts/page.py league --tier reduced         # one experiment: outputs/show/reduced/league/index.html

A tier's page takes a minute or two.
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import argparse
import sys
from pathlib import Path

from attention_coresets.analysis.page.write import own_page, study_page
from attention_coresets.analysis.parts.results import TIERS, ResultsError, load
from attention_coresets.analysis.show.shown import find
from attention_coresets.study.disk import StudyError, write_atomically

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        path, page = _made(options)
        write_atomically(path, page)
    except (ResultsError, StudyError) as reason:
        print(f"page: {reason}", file=sys.stderr)
        return 2
    print(f"{path}: {len(page.encode()) / 1e6:.1f} MB")
    return 0


def _made(options: argparse.Namespace) -> tuple[Path, str]:
    if options.name is None:
        folder = options.results / options.tier
        return folder / "index.html", study_page(load(folder), folder)
    shown = find(options.results, options.name, options.tier)
    if shown.rows.empty:
        raise ResultsError(f"{options.name}: no worst-case errors to show")
    return shown.folder(options.results, options.outputs) / "index.html", own_page(shown)


def _parser() -> argparse.ArgumentParser:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="of a sweep; left out: the whole tier")
    parser.add_argument("--tier", choices=TIERS, default="reduced")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of the tiers")
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs", help="where an experiment's page goes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
