"""Every use of a model on coresets is right, or refused in words (serving_uses.py), as docs/serving.md says."""

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from attention_coresets.analysis.parts.markdown import table
from serving_uses import USES, Use

PAGE = Path(__file__).parents[1] / "docs" / "serving.md"


def marked(use: Use):
    return pytest.param(use, id=f"{use.heading}: {use.words}", marks=[pytest.mark.slow] if use.slow else [])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("use", [marked(use) for use in USES])
def test_the_page_says_what_becomes_of_each_use(use: Use) -> None:
    assert table(use.row(), []).splitlines()[0] in PAGE.read_text().splitlines()


def test_the_page_has_these_uses_in_this_order() -> None:
    lines = [line.removeprefix("| ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    found = [line.partition(" |")[0] for line in lines if not line.startswith(("--- ", "Use "))]
    assert found == [use.words for use in USES]
