"""Writes what becomes of each use of a model on coresets into docs/serving.md, by running the checks of the tests.

python scripts/serving_page.py      # some minutes; tests/test_serving_uses.py fails where the page is stale
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import sys
from importlib import import_module
from itertools import groupby
from pathlib import Path

from attention_coresets.analysis.parts.markdown import contents, fill, table

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    sections = []
    for heading, uses in groupby(import_module("serving_uses").USES, key=lambda use: use.heading):
        sections.append(f"### {heading}\n{table(['Use', 'Outcome'], [use.row() for use in uses])}")
        print(heading, flush=True)
    page = ROOT / "docs" / "serving.md"
    before = page.read_text(encoding="utf-8")
    filled = fill(before, contents(before) | {"serving_uses": "\n\n".join(sections)})
    page.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    main()
