"""W&B runs of the study: their ids, their files, and what a run of an arm or of a cell holds."""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attention_coresets.study.curves import Curves, configuration, points, statistics, summary
from attention_coresets.study.disk import StudyError, not_written
from attention_coresets.study.table import COLUMNS

_PLACE = ("cell", "setting", "replicate", "rho", "n", "d", "seed", "head", "size")
# columns of the table `rows`, as in the result table but for setting and replicate
_MEASURED = (
    *("error", "reached", "restarts", "certificate", "certified_by", "floor_v", "sigma", "radius", "constant"),
    *("heldout_mean", "heldout_p99", "heldout_max", "loss", "loss_full", "kl", "kl_p99", "agreement", "needle_loss"),
    *("needle_found", "needle_right", "kept_bytes", "proven", "start_error", "seconds_construct", "seconds_adversary"),
)
ROWS = {name: (COLUMNS | {"setting": "str", "replicate": "str"})[name] for name in (*_PLACE, *_MEASURED)}
TABLES = ("rows", "cells", "exponents", "claims")


@dataclass(frozen=True)
class Dashboard:
    """The runs of one sweep, live or replayed. `results`, `source`, `tier`, `sweep`: in every id, so that none collide.

    source: `live` or `replay`. outputs: the files go to <outputs>/wandb.
    """

    results: Path
    outputs: Path
    project: str
    source: str
    tier: str
    sweep: str
    experiment: str

    def id(self, *names: str) -> str:
        """The id of a run; the same run has it whenever it is written."""
        text = json.dumps([str(self.results.resolve()), self.source, self.tier, self.sweep, *names])
        return f"{self.source}-{self.tier}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"

    def begin(self, job_type: str, name: str, id: str, config: Mapping[str, Any], step: str = "size") -> Any:
        """A W&B run, offline unless WANDB_MODE says otherwise. Files of an earlier run of this id are removed.

        step: the metric that others are drawn against.

        W&B overwrites what it has of a run when another of the same id comes, so a sweep that is resumed, which tells
        of all its cells, is there once.
        """
        import wandb  # heavy, and not needed without it

        folder = self.outputs / "wandb"
        for earlier in folder.glob(f"offline-run-*-{id}"):
            shutil.rmtree(earlier)
        os.environ.setdefault("WANDB_DATA_DIR", str(folder))  # tables wait there for their upload
        settings = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False)
        quiet = ("stats", "meta", "machine_info")
        settings.update_from_dict({f"x_disable_{part}": True for part in quiet} | {"x_save_requirements": False})
        labels = {"experiment": self.experiment, "tier": self.tier, "source": self.source, "results": str(self.results)}
        run = wandb.init(
            dir=str(self.outputs),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            settings=settings,
            reinit="create_new",
            project=self.project,
            group=f"{self.experiment} {self.tier} {self.source}",
            job_type=job_type,
            tags=[self.tier, self.source, job_type],
            id=id,
            name=name,
            config=labels | dict(config),
        )
        run.define_metric("*", step_metric=step, step_sync=False, summary="none")  # what it tells is said by name
        run.define_metric(step, summary="none")
        for table in TABLES:
            run.define_metric(table)
        return run

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """As long as it lasts, no other process writes these runs. StudyError where one does."""
        path = self.outputs / "wandb" / f"{self.id()}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise not_written(self.outputs, error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StudyError(f"another process writes the dashboard of {self.sweep}; wait for its end") from error
            yield


class Filling:
    """A run of an arm or of a cell that fills as rows come. It is opened with the first of them."""

    def __init__(self, dashboard: Dashboard, job_type: str, name: str, labels: Mapping[str, str]) -> None:
        self._open = functools.partial(dashboard.begin, job_type, name, dashboard.id(job_type, *labels.values()))
        self._labels, self._job_type = dict(labels), job_type
        self._rows: list[pd.DataFrame] = []
        self._curves: Curves = {}
        self._run: Any = None
        self._table: GrowingTable | None = None

    def add(self, rows: pd.DataFrame) -> None:
        """Rows of finished cells, as `curves.placed` makes them: they go to the table `rows`."""
        self._rows.append(rows)
        run = self._opened(configuration(rows))
        self._table = self._table or GrowingTable(run, "rows", ROWS)
        self._table.add(rows)

    def draw(self, settings: Collection[str]) -> None:
        """The curves of settings of which all cells have ended, once each; the summary tells of these."""
        if self._rows:  # all may have failed
            rows = pd.concat(self._rows)
            new = statistics(rows.loc[rows["setting"].isin(list(settings))])
            self._curves |= new
            for point in points(new):
                self._run.log(point)

    def finish(self, **counts: Any) -> None:
        """Close the run with its summary; `counts`: what else to tell. It counts as failed where cells of it failed."""
        run = self._opened({})
        if self._table is not None:
            self._table.flush()
        if len(self._rows) > 1:
            run.config.update(configuration(pd.concat(self._rows)), allow_val_change=True)
        rows = totals(pd.concat(self._rows)) if self._rows else {"cells_finished": 0, "seconds": 0.0}
        run.summary.update(summary(self._curves) | self._plain() | rows | counts)
        run.finish(exit_code=int(bool(counts.get("cells_failed"))))

    def _plain(self) -> dict[str, int | float]:
        """A cell has one setting: its summary under names that all cells share, for parallel coordinates."""
        whole = summary(self._curves) if self._job_type == "cell" else {}
        return {key.partition("/")[0]: value for key, value in whole.items()}

    def _opened(self, config: Mapping[str, Any]) -> Any:
        if self._run is None:
            self._run = self._open(self._labels | dict(config))
        return self._run


def totals(rows: pd.DataFrame) -> dict[str, int | float]:
    """What every summary tells: how many cells have rows, and the seconds of their constructions and adversaries."""
    seconds = np.nansum(rows[["seconds_construct", "seconds_adversary"]].to_numpy(dtype=float))
    return {"cells_finished": len(set(rows["cell"])), "seconds": float(seconds)}


class GrowingTable:
    """A table of a run that is logged in increments; `columns`: their types by name, `str` or a number's.

    W&B shows at most 100 increments of a table and 10,000 rows of each. One is logged when it is an eighth of all that
    were before it, which makes fewer than 100 of 100,000 rows.
    """

    _SHARE, _MOST = 8, 5000

    def __init__(self, run: Any, key: str, columns: Mapping[str, str]) -> None:
        import wandb

        kinds = [str if kind == "str" else float for kind in columns.values()]
        self._table = wandb.Table(columns=list(columns), dtype=kinds, log_mode="INCREMENTAL")
        self._run, self._key, self._columns = run, key, list(columns)
        self._waiting: list[list[Any]] = []

    def add(self, rows: pd.DataFrame) -> None:
        """Append the table's columns of rows, NaN as null."""
        own = rows[self._columns].astype(object)
        self._waiting += own.where(own.notna(), None).to_numpy().tolist()
        if self._SHARE * len(self._waiting) >= len(self._table.data):
            self.flush()

    def flush(self) -> None:
        """Log what waits."""
        for start in range(0, len(self._waiting), self._MOST):
            *rows, last = self._waiting[start : start + self._MOST]
            self._table.data.extend(rows)  # add_data takes two milliseconds a row; once, it begins an increment
            self._table.add_data(*last)
            self._run.log({self._key: self._table})
        self._waiting = []
