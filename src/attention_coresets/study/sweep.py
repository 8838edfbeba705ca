"""A whole sweep: lay out its grid, check every cell before any work, skip what is done, launch the rest, sum up."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import OmegaConf

from attention_coresets.study.checks import check
from attention_coresets.study.config import Composed, resolve
from attention_coresets.study.explain import one_line, refuse_arm_with_coreset
from attention_coresets.study.identity import cell_hash
from attention_coresets.study.job import run_posted
from attention_coresets.study.plugins import PluginChecks
from attention_coresets.study.progress import Board, Monitor
from attention_coresets.study.provenance import provenance
from attention_coresets.study.store import Manifest, Member, Store, StudyError

# overrides that leave an experiment's grid what its file says
_NEUTRAL = ("experiment", "tier", "launcher", "tracking", "paths", "compute.device", "compute.threads")


Task = Callable[[Any], None]


@dataclass(frozen=True)
class Planned:
    """A cell of the grid: the overrides that make it, its name in the store and the experiment, its configuration."""

    overrides: list[str]
    member: Member
    config: dict[str, Any]


def run_sweep(arguments: Sequence[str], config: Composed, context: HydraContext, task: Task, batch: int | None) -> None:
    """Run every cell of the grid that is not done. StudyError, after a summary, where any of them failed."""
    refuse_arm_with_coreset(arguments)
    provenance()  # refuses a wrong revision now, not in every cell
    grid = plan(arguments, config, context)
    store = Store(Path(config.paths.results))
    store.prepare()
    if config.experiment is not None:
        changes = [o for o in config.hydra.overrides.task if not o.lstrip("+~").startswith(_NEUTRAL)]
        store.record(Manifest(config.experiment, config.tier, [p.member for p in grid], changes))
    cells = {p.member.cell: p for p in grid}  # two arms can come to the same cell
    todo = [p for p in cells.values() if store.finished(p.member.cell) is None]
    board = Board(Path(config.hydra.sweep.dir) / "status")
    title = f"{config.experiment or 'sweep'} ({config.tier})"
    monitor = Monitor(board, [p.member.label for p in todo], len(cells) - len(todo), title)
    start = time.monotonic()
    try:
        with monitor:
            _work(todo, config, context, task, batch or max(1, len(todo)), monitor)
    finally:
        print(f"{monitor.summary()}, in {time.monotonic() - start:.0f} s", file=sys.stderr)
    if monitor.failures:
        raise StudyError(
            f"{len(monitor.failures)} of {len(todo)} cells failed, tracebacks in {board.directory}; "
            "the same command tries them again"
        )


def plan(arguments: Sequence[str], config: Composed, context: HydraContext) -> list[Planned]:
    """Lay out and check all cells.

    Hydra takes a tenth of a second to compose one, so it does it once for each choice of config groups; the jobs'
    values are then set on that, as Hydra itself does. Every job of a product sets the same keys, so none stays behind.
    """
    parser = OverridesParser.create(config_loader=context.config_loader)
    jobs = BasicSweeper.split_arguments(parser.parse_overrides(list(arguments)), None)[0]
    groups = set(context.config_loader.list_groups(""))
    constant = set.intersection(*(set(job) for job in jobs))
    composed: dict[tuple[str, ...], Composed] = {}
    parsed = {text: parser.parse_override(text) for job in jobs for text in job}
    found, plugins = [], PluginChecks()
    for job in jobs:
        choices = tuple(text for text in job if parsed[text].key_or_group in groups)
        if choices not in composed:
            composed[choices] = context.config_loader.load_sweep_config(config, job)
        for text in set(job) - constant - set(choices):
            OmegaConf.update(composed[choices], parsed[text].key_or_group, parsed[text].value())
        label = " ".join(text for text in job if text not in constant) or "the only cell"
        found.append(_planned(job, label, resolve(composed[choices]), plugins))
    return found


def _planned(overrides: list[str], label: str, config: dict[str, Any], plugins: PluginChecks) -> Planned:
    try:
        check(config)
        plugins.check(config)
    except StudyError as error:
        raise StudyError(f"{error} (cell: {label})") from error
    return Planned(overrides, Member(cell_hash(config), config["arm"], label), config)


def _work(
    todo: Sequence[Planned],
    config: Composed,
    context: HydraContext,
    task: Task,
    batch: int,
    monitor: Monitor,
) -> None:
    if config.hydra.runtime.choices["hydra/launcher"] == "basic":
        # this process: the configurations are at hand, Hydra's launcher would compose each of them again
        for job, planned in enumerate(todo):
            run_posted(planned.config, monitor.board, job)
        return
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    for first in range(0, len(todo), batch):
        _launch(launcher, [p.overrides for p in todo[first : first + batch]], first, monitor)


def _launch(launcher: Launcher, jobs: list[list[str]], first: int, monitor: Monitor) -> None:
    """Hand jobs to other processes. What is lost there, with a killed worker or a full disk, is reported as failed."""
    lost: dict[int, BaseException] = {}
    try:
        returns = launcher.launch(jobs, initial_job_idx=first)
    except Exception as error:
        lost = dict.fromkeys(range(first, first + len(jobs)), error)
    else:
        failed = (job for job, result in enumerate(returns, start=first) if result.status == JobStatus.FAILED)
        lost = {job: returns[job - first]._return_value for job in failed}
    monitor.look()
    for job in sorted(lost.keys() - monitor.computed - monitor.failures.keys()):
        monitor.fail(job, f"not finished: {one_line(lost[job])}")
