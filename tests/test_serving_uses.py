"""Every use of a model on coresets is right, or refused in words (serving_uses.py)."""

import pytest

pytest.importorskip("transformers")

from serving_uses import USES, Use


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("use", USES, ids=[f"{use.heading}: {use.words}" for use in USES])
def test_use(use: Use) -> None:
    use.outcome()
