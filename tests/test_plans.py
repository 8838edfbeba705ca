"""Every committed cell is found again: an experiment's grid, planned anew, has the names of the cells in the tables."""

from pathlib import Path

import pandas as pd
import pytest
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode

from attention_coresets.study.config import REPOSITORY, register
from attention_coresets.study.sweep import plan

FAST = ("d_rate", "n_independence", "small_caches", "lower_bound_random", "optimum", "real_language")


def planned(experiment: str, tier: str) -> set[tuple[str, str]]:
    """(cell, arm) of the whole grid, as the sweep lays it out."""
    register()
    GlobalHydra.instance().clear()
    hydra = Hydra.create_main_hydra2("sweep", create_config_search_path(str(REPOSITORY / "conf")))
    arguments = [f"experiment={experiment}", f"tier={tier}"]
    config = hydra.compose_config("config", arguments, RunMode.MULTIRUN, with_log_configuration=False)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=None)
    grid = [f"{key}={value}" for key, value in config.hydra.sweeper.params.items()] + arguments
    cells = {(cell.name, cell.config["arm"]) for cell in plan(grid, config, context)}
    GlobalHydra.instance().clear()
    return cells


def experiments() -> list:
    """All experiments; those whose grid takes long to lay out are slow tests."""
    names = sorted(path.stem for path in Path(REPOSITORY / "conf" / "experiment").glob("*.yaml"))
    return [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("experiment", experiments())
@pytest.mark.parametrize("tier", ["reduced", "quick"])
def test_the_grid_has_the_cells_of_the_committed_table(experiment, tier):
    table = pd.read_parquet(REPOSITORY / "results" / tier / "table.parquet", columns=["experiment", "cell", "arm"])
    rows = table.loc[table["experiment"] == experiment]
    assert planned(experiment, tier) == set(zip(rows["cell"], rows["arm"], strict=True))
