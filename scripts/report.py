"""Writes paper_repro.md and the generated numbers of README.md and docs/real_caches.md from the tiers in results/.

    python scripts/report.py            # rewrite them
    python scripts/report.py --check    # write nothing; exit 1 where they differ from what the results give

Generated blocks are the text between `<!-- numbers:NAME -->` and `<!-- /numbers:NAME -->`. Exit code 2, and nothing
written, where results are missing or damaged.
"""

import argparse
import os
import sys
from pathlib import Path

from attention_coresets.analysis.blocks import page_blocks
from attention_coresets.analysis.markdown import fill
from attention_coresets.analysis.report import paper_repro
from attention_coresets.analysis.results import ResultsError, load, present

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        pages = _pages(options.results, options.root)
    except (ResultsError, ValueError) as reason:
        print(f"report: {reason}", file=sys.stderr)
        return 2
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    if options.check:
        for path in stale:
            print(f"report: {path.name} differs from the results; run `python scripts/report.py`", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        _write(path, pages[path])
    print("\n".join(f"{path.name}: {'written' if path in stale else 'up to date'}" for path in pages))
    return 0


def _pages(results: Path, root: Path) -> dict[Path, str]:
    """What each page should hold; those with blocks only where they are."""
    tiers = [load(results / tier) for tier in present(results)]
    if not tiers:
        raise ResultsError(f"no tier has a table in {results}: run `bash scripts/reproduce.sh`")
    pages = {root / "paper_repro.md": paper_repro(tiers)}
    filled = [path for path in (root / "README.md", root / "docs" / "real_caches.md") if path.exists()]
    return pages | {path: fill(path.read_text(), page_blocks(tiers)) for path in filled}


def _write(path: Path, text: str) -> None:
    """All or nothing: an interrupted run leaves the page of the run before."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of the tiers")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of paper_repro.md and README.md")
    parser.add_argument("--check", action="store_true", help="compare only")
    return parser


if __name__ == "__main__":
    sys.exit(main())
