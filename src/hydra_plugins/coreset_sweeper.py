"""Hydra's door to `attention_coresets.study.sweep`: it looks for sweepers in the namespace package hydra_plugins."""

from collections.abc import Mapping
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class CoresetSweeper(Sweeper):
    """The product of the values in `params` and on the command line, without the cells that are already done."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.config = config

    def sweep(self, arguments: list[str]) -> None:
        # imported here: Hydra imports this file to list its plugins, long before a sweep is wanted
        from attention_coresets.analysis.show.summary import print_summary
        from attention_coresets.study.sweep import run_sweep

        assert self.config is not None
        assert self.hydra_context is not None
        grid = [f"{key}={value}" for key, value in self.params.items()] + arguments
        run_sweep(grid, self.config, self.hydra_context, print_summary)
