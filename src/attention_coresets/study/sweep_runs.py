"""All runs of one sweep's dashboard, filled from rows of the result table: the same for a sweep that runs and a replay.

One run for the sweep itself, with its cells and its progress, and one for each arm or for each cell.
"""

import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import pandas as pd

from attention_coresets.study.curves import Place
from attention_coresets.study.wandb_runs import Dashboard, Filling, GrowingTable, totals

CELLS = {
    **dict.fromkeys(("cell", "arm", *Place._fields, "state"), "str"),
    **{"seconds": "float64", "message": "str"},
}
_EVERY = 30.0  # seconds after which progress is told though nothing has changed


class Planned(NamedTuple):
    """A cell as an arm asks for it."""

    cell: str
    arm: str
    place: Place


class SweepRuns:
    """The runs of a sweep of which these (arm, construction) are known. per: `arm` or `cell`."""

    def __init__(self, dashboard: Dashboard, per: str, arms: Iterable[tuple[str, str]]) -> None:
        self._dashboard, self._per = dashboard, per
        arms = list(arms)
        self._arms = {(arm, made): self._arm(arm, made, arms) for arm, made in arms if per == "arm"}
        config = {"per": per, "arms": sorted({arm for arm, _ in arms})}
        title = f"{dashboard.experiment} {dashboard.tier}"
        self._run = dashboard.begin("sweep", title, dashboard.id("sweep"), config, step="progress/seconds")
        self._cells = GrowingTable(self._run, "cells", CELLS)
        self._totals = {"cells_finished": 0, "seconds": 0.0}
        self._start = self._told = time.monotonic()
        self._last: tuple[int, ...] = ()

    def add(self, rows: pd.DataFrame, states: Mapping[str, str]) -> None:
        """Rows of finished cells, as `curves.placed` makes them, and how these came to be finished."""
        for _, own in rows.groupby(["arm", "construction"], sort=False):
            arm, made = own[["arm", "construction"]].iloc[0].tolist()
            if self._per == "arm":
                self._arms[arm, made].add(own)
            else:
                self._show_cells(own)
        seconds = rows[["seconds_construct", "seconds_adversary"]].sum(axis=1)
        cells = rows.assign(seconds=seconds).groupby(["cell", "arm", *Place._fields], sort=False, as_index=False)
        ended = pd.DataFrame(cells["seconds"].sum())
        self._cells.add(ended.assign(state=[states[cell] for cell in ended["cell"]], message=""))
        for name, value in totals(rows.drop_duplicates(["cell", "size", "head"])).items():
            self._totals[name] += value

    def draw(self, arm: str, construction: str, settings: Iterable[str]) -> None:
        """The curves of an arm in settings of which all cells have ended. A cell's run has its own from the start."""
        if self._per == "arm":
            self._arms[arm, construction].draw(list(settings))

    def without_rows(self, cells: Iterable[Planned], state: str, messages: Mapping[str, str]) -> None:
        """Cells that failed or were not reached, and why."""
        cells = list(cells)
        found = [(c.cell, c.arm, *c.place, state, float("nan"), messages.get(c.cell, "")) for c in cells]
        if found:
            self._cells.add(pd.DataFrame(found, columns=list(CELLS)))
        if self._per == "cell" and state == "failed":
            for each in cells:
                self._cell(each).finish(cells_failed=1, message=messages[each.cell])

    def progress(self, finished: int, failed: int, left: int, computed: int) -> None:
        """How far the sweep is; `computed`: cells that it has computed itself, from which its end is estimated."""
        now = time.monotonic()
        if (finished, failed, left) == self._last and now - self._told < _EVERY:
            return
        self._last, self._told = (finished, failed, left), now
        point = {"seconds": now - self._start, "finished": finished, "failed": failed, "left": left}
        if computed:
            point["seconds_left"] = left * (now - self._start) / computed
            point["estimated_end"] = time.time() + point["seconds_left"]
        self._run.log({f"progress/{name}": value for name, value in point.items()})

    def close(self, counts: Mapping[tuple[str, str], Mapping[str, int]], **whole: int) -> None:
        """End all runs. counts: what their arms' summaries tell beside what was finished; `whole`: the sweep's."""
        for key, run in self._arms.items():
            run.finish(**counts.get(key, {}))
        self._cells.flush()
        self._run.summary.update(self._totals | whole)
        self._run.finish(exit_code=int(bool(whole.get("cells_failed"))))

    def _show_cells(self, rows: pd.DataFrame) -> None:
        for _, own in rows.groupby("cell", sort=False):
            cell, arm, *place = own[["cell", "arm", *Place._fields]].iloc[0].tolist()
            write_cell(self._cell(Planned(cell, arm, Place(*place))), own)

    def _cell(self, planned: Planned) -> Filling:
        return cell_run(self._dashboard, planned)

    def _arm(self, arm: str, construction: str, arms: list[tuple[str, str]]) -> Filling:
        """Named as its arm, or where several constructions go by one name, as its construction."""
        alone = sum(other == arm for other, _ in arms) == 1
        labels = {"arm": arm, "construction": construction}
        return Filling(self._dashboard, "arm", arm if alone else construction, labels)


def cell_run(dashboard: Dashboard, planned: Planned) -> Filling:
    """The run of a cell."""
    labels = {"arm": planned.arm, "cell": planned.cell, **planned.place._asdict()}
    return Filling(dashboard, "cell", " ".join((planned.arm, *planned.place[1:])), labels)


def write_cell(run: Filling, rows: pd.DataFrame) -> None:
    """Fill and end the run of a finished cell."""
    run.add(rows)
    run.draw(set(rows["setting"]))
    run.finish()
