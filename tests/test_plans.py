"""Every committed cell is found again: an experiment's grid, planned anew, has the names of the cells in the tables."""

from pathlib import Path

import pandas as pd
import pytest

from attention_coresets.study.audit import laid_out
from attention_coresets.study.config import REPOSITORY

FAST = ("d_rate", "n_independence", "lower_bound_random", "real_language")


def experiments() -> list:
    """All experiments; those whose grid takes long to lay out are slow tests."""
    names = sorted(path.stem for path in Path(REPOSITORY / "conf" / "experiment").glob("*.yaml"))
    return [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("experiment", experiments())
@pytest.mark.parametrize("tier", ["reduced", "quick"])
def test_the_grid_has_the_cells_of_the_committed_table(experiment, tier):
    table = pd.read_parquet(REPOSITORY / "results" / tier / "table.parquet", columns=["experiment", "cell", "arm"])
    rows = table.loc[table["experiment"] == experiment]
    if rows.empty:
        pytest.skip("not run at this tier")
    cells = {(cell.name, cell.config["arm"]) for cell in laid_out(["-m", f"experiment={experiment}", f"tier={tier}"])}
    assert cells == set(zip(rows["cell"], rows["arm"], strict=True))
