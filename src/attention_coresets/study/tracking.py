"""An optional sink beside the result table, which stays the truth: nothing, or a W&B run for each computed cell."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from attention_coresets.study.identity import cell_hash, identity

SINKS = ("none", "wandb")
SHOWN = ("size", "head", "error", "constant", "sigma", "radius", "seconds_construct", "seconds_adversary")


def track(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Hand the rows of a finished cell to the sink that the configuration names.

    wandb: a run with group = experiment, whose configuration holds the cell's hash. Offline unless WANDB_MODE says
    otherwise: no account and no network; the files go to <paths.outputs>/wandb and `wandb sync` uploads them.
    """
    if config["tracking"]["name"] == "wandb":
        _wandb(config, rows)


def _wandb(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    run = open_run(
        Path(config["paths"]["outputs"]),
        project=config["tracking"]["project"],
        group=config["experiment"] or "single cells",
        id=cell_hash(config),
        name=f"{config['arm']} rho={config['rho']:g} seed={config['seed']}",
        tags=[config["tier"]],
        config=identity(config)
        | {"cell": cell_hash(config), "arm": config["arm"], "experiment": config["experiment"], "tier": config["tier"]},
    )
    for row in rows:
        run.log({key: row[key] for key in SHOWN})
    run.finish()


def open_run(folder: Path, id: str, **options: Any) -> Any:
    """A W&B run with files in <folder>/wandb, offline unless WANDB_MODE says otherwise; options as `wandb.init`.

    Its id begins with `id` and is another each time: of two offline runs of one id only one would be synced, and an id
    that was deleted cannot be synced again.
    """
    import wandb  # heavy, and not needed without it

    folder.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    mode = os.environ.get("WANDB_MODE", "offline")
    own = f"{id}-{uuid4().hex[:8]}"
    return wandb.init(dir=str(folder), mode=mode, settings=settings, id=own, **options)  # type: ignore[arg-type]
