"""A whole sweep: lay out its grid, check every cell before any work, skip what is done, compute the rest, sum up."""

import contextlib
import itertools
import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
from hydra.types import HydraContext
from omegaconf import OmegaConf

from attention_coresets.study.checks import check
from attention_coresets.study.config import Composed
from attention_coresets.study.disk import StudyError
from attention_coresets.study.explain import refuse_arm_with_coreset
from attention_coresets.study.grid import lay_out
from attention_coresets.study.identity import cell_hash
from attention_coresets.study.launchers import in_processes, in_slurm
from attention_coresets.study.mixed import refuse_mixed
from attention_coresets.study.names import OWN, Place, changing, check_name, place_of
from attention_coresets.study.older import tell_older
from attention_coresets.study.plan import Cell, Sweep, write_plan
from attention_coresets.study.plugins import PluginChecks
from attention_coresets.study.progress import LOG, Monitor, monitor_of
from attention_coresets.study.provenance import provenance
from attention_coresets.study.slurm import Slurm
from attention_coresets.study.store import Manifest, Member, Store
from attention_coresets.study.times import seconds_by_group
from attention_coresets.study.tracking import Tracker, tracker_of
from attention_coresets.study.worker import work

Show = Callable[[Store, Place], None]  # what is told of a sweep at its end


def run_sweep(arguments: Sequence[str], config: Composed, context: HydraContext, show: Show) -> None:
    """Compute every cell of the grid that is not done, then show what is there. StudyError, after that, where any cell
    is not finished."""
    refuse_arm_with_coreset(arguments)
    provenance()  # refuses a wrong revision now, not in every cell
    start = time.monotonic()
    tracker = tracker_of(config)
    sweep, place, changes = prepare(arguments, config, context, tracker)
    monitor = monitor_of(sweep)
    keep_log(sweep, config)
    try:
        with tracker.watching(sweep, place, changes) if tracker is not None else contextlib.nullcontext(), monitor:
            if monitor.names:
                _launch(sweep, config, monitor)
    finally:
        summary = f"{monitor.summary()}, in {time.monotonic() - start:.0f} s"
        print(summary, file=sys.stderr)
        LOG.info(summary)
        sweep.store.pack_idle()
    show(sweep.store, place)
    _complain(monitor, sweep)


def prepare(
    arguments: Sequence[str], config: Composed, context: HydraContext, tracker: Tracker | None = None
) -> tuple[Sweep, Place, list[str]]:
    """Plan the sweep, on disk, and record its grid. Returns what the command changes of its experiment's file, too.

    A tracker gets to know every cell of the grid, those that are done too. StudyError before any work where a cell is
    refused.
    """
    check_name(config.name, context.config_loader.get_group_options("experiment"))
    store = Store(Path(config.paths.results).resolve())
    store.prepare()
    task = list(config.hydra.overrides.task)
    changes = changing(task) if config.name is None and config.experiment is not None else []
    if changes and config.experiment in store.experiments(config.tier):
        refuse_mixed(store.manifest(config.tier, config.experiment), changes, config.hydra.sweeper.get("params") or {})
    folder = _free(Path(config.hydra.sweep.dir).resolve())
    finished = store.finished()
    members: list[Member] = []
    cells: set[str] = set()

    def todo() -> Iterator[Cell]:
        for cell in plan(arguments, config, context):
            members.append(Member(cell.name, cell.config["arm"], cell.label))
            if tracker is not None:
                tracker.expect(cell)
            known = cell.name in cells  # two arms can come to the same cell
            cells.add(cell.name)
            if not known and not (cell.name in finished and store.intact(cell.name)):
                yield cell

    number = write_plan(folder, todo())
    place = place_of(config.name, config.experiment, config.tier, arguments, members[0].label)
    _tell_replaced(store, place, cells)
    done = store.tables({cell for cell in cells if cell in finished}, ["cell", "revision", "dirty"])
    tell_older(pd.concat([pd.DataFrame(), *(table.to_pandas() for table in done)]))
    store.record(Manifest(place.name, place.tier, members, changes, _command(config, task)))
    title = place.name if place.tier == OWN else f"{place.name} ({place.tier})"
    seconds = seconds_by_group(store) if number else {}
    sweep = Sweep(folder, title, store.results, len(cells) - number, list(config.plugins), Path.cwd(), seconds)
    sweep.save()
    return sweep, place, changes


def _command(config: Composed, task: Sequence[str]) -> str:
    """The command line that asks for this sweep."""
    return shlex.join(["python", "scripts/sweep.py", *["-m"] * (config.experiment is None), *task])


def _tell_replaced(store: Store, place: Place, cells: set[str]) -> None:
    """A sweep of one's own is its last run; of an experiment, runs with other grids add up."""
    if place.tier == OWN and place.name in store.experiments(OWN):
        gone = {member.cell for member in store.manifest(*place).members} - cells
        if gone:
            note = f"note: {place.name} no longer has {len(gone)} cells of its last run; they are kept in {store.cells}"
            print(note, file=sys.stderr)


def keep_log(sweep: Sweep, config: Composed) -> None:
    """The sweep's folder gets multirun.yaml, as Hydra composed it, and sweep.log: command, failures, summary."""
    OmegaConf.save(config, sweep.folder / "multirun.yaml")
    for handler in list(LOG.handlers):  # of an earlier sweep of this process
        LOG.removeHandler(handler)
        handler.close()
    handler = logging.FileHandler(sweep.folder / "sweep.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.info(_command(config, list(config.hydra.overrides.task)))
    LOG.info("%s: %d cells to compute, %d already done", sweep.title, len(sweep.jobs()), sweep.done)


def plan(arguments: Sequence[str], config: Composed, context: HydraContext) -> Iterator[Cell]:
    """Lay out and check all cells."""
    plugins = PluginChecks()
    for label, resolved in lay_out(arguments, config, context.config_loader):
        try:
            check(resolved)
            plugins.check(resolved)
        except StudyError as error:
            raise StudyError(f"{error} (cell: {label})") from error
        yield Cell(cell_hash(resolved), label, resolved)


def _launch(sweep: Sweep, config: Composed, monitor: Monitor) -> None:
    launcher, options = config.hydra.runtime.choices["launcher"], config.hydra.launcher
    if launcher == "local":
        work(sweep)
    elif launcher == "joblib":
        in_processes(sweep, options.n_jobs, config.compute.threads)
    else:
        in_slurm(sweep, Slurm(**OmegaConf.to_container(options, resolve=True)), monitor)  # type: ignore[arg-type]


def _free(folder: Path) -> Path:
    """The folder, or where an earlier sweep has its plan, one in it."""
    others = (folder / f"again-{number}" for number in itertools.count(1))
    return next(place for place in itertools.chain([folder], others) if not (place / "plan").exists())


def _complain(monitor: Monitor, sweep: Sweep) -> None:
    failed = monitor.board.failed
    if monitor.board.stopped and monitor.left:
        raise StudyError(monitor.board.stopped[0])
    if failed or monitor.left:
        parts = [f"{len(failed)} of {len(monitor.names)} cells failed, tracebacks in {sweep.board}"] * bool(failed)
        parts += [f"{monitor.left} cells are not finished"] * bool(monitor.left)
        raise StudyError(f"{'; '.join(parts)}; the same command tries them again")
