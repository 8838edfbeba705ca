"""Writes paper_repro.md, results/TIER/tables.md and claims.csv, and the generated numbers of README.md and docs/.

    python scripts/report.py            # rewrite them
    python scripts/report.py --check    # write nothing; exit 1 where they differ from what the results give, and
                                        # where a page states a number by hand (report/typed_numbers.py has the rule)

Generated blocks are the text between `<!-- numbers:NAME -->` and `<!-- /numbers:NAME -->`, on lines of its own or
inside a line; those of docs/benchmarks.md and docs/cluster.md are written in benchmarks/, those of docs/serving.md by
scripts/serving_page.py. Exit code 1 as well where the results
violate a check of the code; 2, and nothing written, where results are missing or damaged.
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import argparse
import sys
from pathlib import Path

from attention_coresets.analysis.parts.markdown import fill
from attention_coresets.analysis.parts.results import TIERS, Results, ResultsError, load, present
from attention_coresets.analysis.report.blocks import NOTHING, page_blocks, preferred
from attention_coresets.analysis.report.decided import decided, violated
from attention_coresets.analysis.report.paper_repro import paper_repro, strongest
from attention_coresets.analysis.report.tables_page import claims_csv, tables_page
from attention_coresets.analysis.report.typed_numbers import LIST, complaints
from attention_coresets.analysis.report.which import which
from attention_coresets.study.disk import NotWrittenError, write_atomically

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = ("docs/benchmarks.md", "docs/cluster.md", "docs/serving.md")  # blocks from benchmarks/ and serving_page.py


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if not options.root.is_dir():
            raise ResultsError(f"{options.root} is no folder: give the repository as --root")
        tiers = _tiers(options.results)
        pages = _pages(tiers, options.root) | _tables(tiers, options.results)
    except (ResultsError, ValueError) as reason:
        print(f"report: {reason}", file=sys.stderr)
        return 2
    broken = [f"check {name} is violated at tier {tier.tier}" for tier in tiers for name in violated(tier)]
    for line in broken:
        print(f"report: {line}", file=sys.stderr)
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if options.check:
        wrong = [f"{_name(path)} differs from the results; run `python scripts/report.py`" for path in stale]
        wrong += typed_by_hand(options.root)
        for line in wrong:
            print(f"report: {line}", file=sys.stderr)
        return 1 if wrong or broken else 0
    try:
        for path in stale:
            write_atomically(path, pages[path])  # an interrupted run leaves the page of the run before
    except NotWrittenError as reason:
        print(f"report: {reason}", file=sys.stderr)
        return 2
    print("\n".join(f"{_name(path)}: {'written' if path in stale else 'up to date'}" for path in pages))
    return 1 if broken else 0


def _tiers(results: Path) -> list[Results]:
    tiers = [load(results / tier) for tier in present(results)]
    if not tiers:
        raise ResultsError(f"no tier has a table in {results}: run `bash scripts/reproduce.sh`")
    return tiers


def _pages(tiers: list[Results], root: Path) -> dict[Path, str]:
    """What each page should hold."""
    quoted = preferred(tiers)
    blocks = page_blocks(tiers) | {"which": which(quoted, root / "benchmarks" / "results") or NOTHING}
    filled = {
        path: fill(path.read_text(encoding="utf-8"), blocks)
        for name, path in _by_hand(root).items()
        if name not in ELSEWHERE
    }
    return {root / "paper_repro.md": paper_repro(strongest(tiers))} | filled


def _tables(tiers: list[Results], folder: Path) -> dict[Path, str]:
    """What lies beside each tier's table."""
    return {
        folder / results.tier / name: text
        for results in tiers
        for name, text in (
            ("tables.md", tables_page(results)),
            ("claims.csv", claims_csv(results, decided(results))),
        )
    }


def _name(path: Path) -> str:
    """A page's name, with the tier that it belongs to."""
    return f"{path.parent.name}/{path.name}" if path.parent.name in TIERS else path.name


def typed_by_hand(root: Path) -> list[str]:
    """A line for each line of README.md or docs/ that states a number by hand which is not listed."""
    listed = root / LIST
    pages = {name: path.read_text(encoding="utf-8") for name, path in _by_hand(root).items()}
    return complaints(pages, listed.read_text(encoding="utf-8") if listed.exists() else "")


def _by_hand(root: Path) -> dict[str, Path]:
    """The pages that people write, by their names from the root."""
    paths = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    return {path.relative_to(root).as_posix(): path for path in paths if path.exists()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of the tiers")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of paper_repro.md and README.md")
    parser.add_argument("--check", action="store_true", help="compare only")
    return parser


if __name__ == "__main__":
    sys.exit(main())
