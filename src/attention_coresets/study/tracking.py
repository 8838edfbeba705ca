"""A dashboard of a sweep while it runs. One process writes it, whoever computes: the one that started the sweep.

It looks at the sweep's board and at the store, so that cells that were done before, failed, or were computed elsewhere
are there too. docs/dashboards.md says what one sees. The result table stays the truth.
"""

import contextlib
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from attention_coresets.study import names
from attention_coresets.study.curves import place_of, placed
from attention_coresets.study.disk import StudyError
from attention_coresets.study.plan import Cell, Sweep
from attention_coresets.study.progress import Board
from attention_coresets.study.sweep_runs import Planned, SweepRuns, cell_run, write_cell
from attention_coresets.study.table import rows_of, to_frame
from attention_coresets.study.wandb_runs import Dashboard

_LOOK, _SHARE = 3.0, 10.0  # seconds between looks at least, and how many times as long as a look takes


def show_cell(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """The dashboard of a cell that was asked for alone, computed now or before."""
    if config["tracking"]["name"] == "none":
        return
    dashboard = _dashboard(config, names.Place(config["tier"], "single cells"))
    labels = {"experiment": dashboard.experiment, "tier": dashboard.tier, "arm": config["arm"]}
    frame = placed(to_frame([dict(row) | labels for row in rows]))
    with dashboard.alone():
        write_cell(cell_run(dashboard, Planned(frame["cell"].iloc[0], config["arm"], place_of(config))), frame)


def tracker_of(config: Mapping[str, Any]) -> "Tracker | None":
    """What `tracking` asks for."""
    return None if config["tracking"]["name"] == "none" else Tracker(config)


class Tracker:
    """The dashboard of a sweep: told of every cell of its grid first, then a context while the sweep runs."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config, self._per = config, config["tracking"]["per"]
        self._grid: dict[tuple[str, str], Planned] = {}

    def expect(self, cell: Cell) -> None:
        """A cell of the grid, done or not."""
        arm = cell.config["arm"]
        self._grid[cell.name, arm] = Planned(cell.name, arm, place_of(cell.config))

    @contextlib.contextmanager
    def watching(self, sweep: Sweep, name: names.Place, changes: Sequence[str]) -> Iterator[None]:
        """Write until the sweep ends. StudyError at the end where the dashboard could not be written.

        changes: what the command changes of its experiment's file, which makes it another sweep.
        """
        dashboard = _dashboard(self._config, name, changes)
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(dashboard.alone())
            except StudyError as error:
                print(f"no dashboard from this process: {error}", file=sys.stderr)
                yield
                return
            live = Live(dashboard, self._per, sweep, list(self._grid.values()))
            with live:
                yield
        if live.error is not None:
            raise StudyError(
                f"the dashboard stopped ({type(live.error).__name__}: {live.error}); the cells are kept: collect them "
                "and replay them with `python scripts/publish_wandb.py`"
            ) from live.error
        print(f"see it: wandb leet {dashboard.outputs / 'wandb'}", file=sys.stderr)


class Live:
    """Looks every few seconds at what has become of the cells, and tells W&B. `error`: what ended it early, if any."""

    def __init__(self, dashboard: Dashboard, per: str, sweep: Sweep, grid: Sequence[Planned]) -> None:
        self.error: Exception | None = None
        self._sweep, self._dashboard, self._per = sweep, dashboard, per
        self._board, self._jobs = Board(sweep.board), sweep.jobs().names
        self._planned: defaultdict[str, list[Planned]] = defaultdict(list)
        self._open: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)  # cells left, by arm and setting
        for each in grid:
            self._planned[each.cell].append(each)
            self._open[each.arm, each.place.construction][each.place.setting] += 1
        self._finished = sweep.store.finished(list(self._planned))
        self._shown: set[str] = set()
        self._failed: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._try(self._begin)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._try(self._look)
        self._try(self._close)

    def _watch(self) -> None:
        took = 0.0
        while not self._stop.wait(max(_LOOK, _SHARE * took)):
            start = time.monotonic()
            self._try(self._look)
            took = time.monotonic() - start

    def _try(self, action: Callable[[], None]) -> None:
        """The sweep goes on without its dashboard."""
        if self.error is None:
            try:
                action()
            except Exception as error:
                self.error = error

    def _begin(self) -> None:
        self._runs = SweepRuns(self._dashboard, self._per, self._open)
        self._look()

    def _look(self) -> None:
        self._board.look()
        self._finished.refresh()
        computed = {self._jobs[job] for job in self._board.computed}
        new = [cell for cell in self._finished if cell not in self._shown]
        new = self._show(new, computed) if new else []
        messages = {self._jobs[job]: post.text for job, post in self._board.failed.items()}
        failed = [cell for cell in messages if cell not in self._shown]
        self._failed |= {cell: messages[cell] for cell in failed}
        self._runs.without_rows(self._of(failed), "failed", messages)
        self._end([*new, *failed])
        finished, left = len(self._shown) - len(self._failed), len(self._planned) - len(self._shown)
        self._runs.progress(finished, len(self._failed), left, len(computed))

    def _show(self, cells: Sequence[str], computed: Collection[str]) -> list[str]:
        """Those of the cells of which there are rows; a damaged one is set aside and computed again."""
        asked = pd.DataFrame([(each.cell, each.arm) for each in self._of(cells)], columns=["cell", "arm"], dtype="str")
        labels = {"experiment": self._dashboard.experiment, "tier": self._dashboard.tier}
        rows = placed(rows_of(self._sweep.store, asked.assign(**labels)))
        found = rows["cell"].unique().tolist()
        self._runs.add(rows, {cell: "computed" if cell in computed else "already done" for cell in found})
        return found

    def _end(self, cells: Sequence[str]) -> None:
        """No more comes of these cells: a curve is drawn, once, when all its cells have ended."""
        whole: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for arm, place in ((each.arm, each.place) for each in self._of(cells)):
            left = self._open[arm, place.construction]
            left[place.setting] -= 1
            if not left[place.setting]:
                whole[arm, place.construction].append(place.setting)
        self._shown.update(cells)
        for key, settings in whole.items():
            self._runs.draw(*key, settings)

    def _close(self) -> None:
        left = [cell for cell in self._planned if cell not in self._shown]
        self._runs.without_rows(self._of(left), "not finished", {})
        counts = {key: {"cells_failed": 0, "cells_left": 0} for key in self._open}
        for name, cells in (("cells_failed", self._failed), ("cells_left", left)):
            for each in self._of(cells):
                counts[each.arm, each.place.construction][name] += 1
        self._runs.close(counts, cells_failed=len(self._failed), cells_left=len(left))

    def _of(self, cells: Sequence[str] | Mapping[str, str]) -> list[Planned]:
        return [each for cell in cells for each in self._planned[cell]]


def _dashboard(config: Mapping[str, Any], name: names.Place, changes: Sequence[str] = ()) -> Dashboard:
    results, outputs = (Path(config["paths"][key]).resolve() for key in ("results", "outputs"))
    sweep = " ".join((name.name, *sorted(changes)))
    return Dashboard(results, outputs, config["tracking"]["project"], "live", name.tier, sweep, name.name)
