"""Writes what becomes of each use of a model on coresets into docs/serving.md, by running the checks of the tests.

python scripts/serving_page.py      # some minutes; tests/test_serving_uses.py fails where the page is stale
"""

import sys
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from attention_coresets.analysis.parts.markdown import fill, table  # noqa: E402
from serving_uses import USES  # noqa: E402


def main() -> None:
    sections = []
    for heading, uses in groupby(USES, key=lambda use: use.heading):
        sections.append(f"### {heading}\n{table(['Use', 'Outcome'], [use.row() for use in uses])}")
        print(heading, flush=True)
    page = ROOT / "docs" / "serving.md"
    page.write_text(fill(page.read_text(), {"serving_uses": "\n\n".join(sections)}))


if __name__ == "__main__":
    main()
