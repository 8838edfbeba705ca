"""What sweeps cost beside their cells: launchers against each other, and a store of very many cells.

    python benchmarks/sweeps.py                       # all of it: a quarter of an hour on idle cores
    python benchmarks/sweeps.py --part launchers --part store --cells 100000 --million 1000000

Launchers are compared by whole commands, start-up included, run in turn: on a machine that does other work too only
their ratio means something. The store is filled with made-up rows of cells that are planned in earnest. Slurm is
measured where it is installed (root, Debian). Writes
benchmarks/results/sweeps/measured.json and the table of docs/cluster.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from attention_coresets.analysis.parts.markdown import fill, number, table  # noqa: E402  (needs the path)
from attention_coresets.study.disk import write_atomically  # noqa: E402
from attention_coresets.study.finished import Finished  # noqa: E402
from attention_coresets.study.identity import cell_hash  # noqa: E402
from attention_coresets.study.job import computed_rows  # noqa: E402
from attention_coresets.study.progress import Board, Monitor, Post, Poster  # noqa: E402
from attention_coresets.study.store import Store  # noqa: E402
from benchmarks import machine  # noqa: E402
from benchmarks.cluster import Cluster, NoClusterError  # noqa: E402
from benchmarks.store import words  # noqa: E402

RESULTS, PAGE = ROOT / "benchmarks" / "results" / "sweeps" / "measured.json", ROOT / "docs" / "cluster.md"
CELL = ("cache=sphere", "cache.d=2", "sizes=[4]", "coreset=uniform", "compute.threads=1")
KINDS = {
    "trivial": ("cache.n=16", "adversary.restarts=1", "adversary.steps=1", "adversary.polish=1"),
    "0.3 s": ("cache.n=4096", "adversary=default", "heads=1"),
}
EXPERIMENT = """# @package _global_
experiment: many
at:
  smoke: {}
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      seed: range(0,%d)
"""


def main() -> int:
    options = _parser().parse_args()
    measured: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for part in options.part or PARTS:
            measured[part] = PARTS[part](Path(folder) / part, options) | {"how": machine.how()}
            print(json.dumps(measured[part], indent=1), flush=True)
            measured["machine"] = machine.machine()
            write_atomically(RESULTS, json.dumps(measured, indent=1) + "\n")
            write_atomically(PAGE, fill(PAGE.read_text(), blocks(measured)))
    return 0


def launchers(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Cells a second by launcher and kind of cell, start-up included: medians over rounds, and of ratios in a round."""
    found: dict[str, Any] = {}
    for kind, cells in (("trivial", options.trivial), ("0.3 s", options.slow)):
        rates: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for launcher in ("local", "joblib"):
                rates.setdefault(launcher, []).append(_rate(folder, kind, cells, f"launcher={launcher}"))
        ratios = [two / one for one, two in zip(rates["local"], rates["joblib"], strict=True)]
        found[kind] = {"cells": cells, "rates": rates, "ratio": median(ratios)}
    return found


def slurm(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Two tasks of Slurm against two processes of this machine, on trivial cells."""
    rates: dict[str, list[float]] = {"joblib": [], "slurm": []}
    try:
        folder.mkdir()
        with Cluster(folder / "cluster", cpus=2):
            for _ in range(options.rounds):
                rates["joblib"].append(_rate(folder, "trivial", options.packed, "launcher=joblib"))
                asked = ("launcher=slurm", "hydra.launcher.mem_gb=1", "hydra.launcher.array_parallelism=2")
                rates["slurm"].append(_rate(folder, "trivial", options.packed, *asked))
    except NoClusterError as reason:
        return {"reason": str(reason)}
    ratios = [two / one for one, two in zip(rates["joblib"], rates["slurm"], strict=True)]
    return {"cells": options.packed, "rates": rates, "ratio": median(ratios)}


def _rate(folder: Path, kind: str, cells: int, *launcher: str) -> float:
    results = Path(tempfile.mkdtemp(dir=_made(folder)))
    start = time.perf_counter()
    _sweep("-m", *CELL, *KINDS[kind], f"seed=range(0,{cells})", f"paths.results={results}", *launcher)
    seconds = time.perf_counter() - start
    assert len(Store(results).finished()) == cells
    return cells / seconds


def store(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A finished sweep of many cells: filling its store, planning it again, its table, looking at its board."""
    results = _made(folder) / "results"
    conf = folder / "conf" / "experiment"
    conf.mkdir(parents=True)
    (conf / "many.yaml").write_text(EXPERIMENT % options.cells)
    command = [
        *("experiment=many", "tier=smoke", f"hydra.searchpath=[file://{conf.parent}]", *CELL, *KINDS["trivial"]),
        *(f"paths.results={results}", f"paths.outputs={folder / 'outputs'}"),
    ]
    filling = _filled(Store(results), options.cells)
    planning = _used([sys.executable, str(ROOT / "scripts" / "sweep.py"), *command])
    collect = [sys.executable, str(ROOT / "scripts" / "collect.py"), "--tier", "smoke", "--results", str(results)]
    collecting = _used(collect)
    found = {"cells": options.cells, "filling": filling, "planning": planning, "collecting": collecting}
    return found | {"board": _board(folder / "board", options.cells)}


def million(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The store alone with a great many cells: their writing, their names, all their rows batch by batch."""
    kept = Store(_made(folder) / "results")
    filling = _filled(kept, options.million)
    files = [path for path in kept.cells.rglob("*") if path.is_file()]
    found = {"cells": options.million, "filling": filling, "files": len(files)}
    found["bytes"] = sum(path.stat().st_size for path in files)
    for name in ("names", "rows"):
        found[name] = _used([sys.executable, "-c", _READ[name], str(kept.results)])
    return found


_READ = {
    "names": "import sys; from pathlib import Path; from attention_coresets.study.store import Store\n"
    "print(len(Store(Path(sys.argv[1])).finished()))",
    "rows": "import sys; from pathlib import Path; from attention_coresets.study.store import Store\n"
    "store = Store(Path(sys.argv[1])); print(sum(len(table) for table in store.tables(store.finished())))",
}


def _filled(kept: Store, cells: int) -> dict[str, float]:
    """Write cells whose configurations are planned in earnest, with the rows of the first."""
    configs = _configs(kept.results)
    rows = computed_rows(next(configs))
    log, start = kept.log("filler"), time.process_time()
    for config in _some(_configs(kept.results), cells):
        name = cell_hash(config)
        log.add(name, config, [row | {"cell": name, "seed": config["seed"]} for row in rows])
        if config["seed"] % 64 == 0:
            log.sync()
    log.close()
    return {"cpu": time.process_time() - start}


def _configs(results: Path) -> Iterator[dict[str, Any]]:
    """The cells of `CELL` with seeds 0, 1, 2, ..., as a sweep resolves them."""
    with tempfile.TemporaryDirectory() as folder:
        where = (f"paths.results={folder}", f"paths.outputs={folder}/outputs")
        _sweep("-m", *CELL, *KINDS["trivial"], "seed=0,1", *where)
        (record, *_) = [r for path in Store(Path(folder)).logs.iterdir() for r in path.read_bytes().splitlines()]
    config = json.loads(record.split(b" ", 2)[2])["config"]
    config |= {"paths": {"results": str(results), "outputs": ""}, "experiment": "many", "tier": "smoke"}
    seed = 0
    while True:
        yield config | {"seed": seed}
        seed += 1


def _some(configs: Iterator[dict[str, Any]], number: int) -> Iterator[dict[str, Any]]:
    return (config for _, config in zip(range(number), configs, strict=False))


def _board(folder: Path, cells: int) -> dict[str, float]:
    """The share of a core that looking takes, of a board with so many posts to which 200 a second are added."""
    names = [f"{job:016x}" for job in range(2 * cells)]
    poster = Poster(folder, "worker")
    for job in range(cells):
        poster.post(Post("running", job))
        poster.post(Post("computed", job, 0.005))
    empty = Finished(folder, ())
    with Monitor(Board(folder), empty, names, names, 0, "many") as monitor:
        time.sleep(3.0)  # it has read what there is
        start, used = time.monotonic(), time.thread_time()
        before = time.process_time()
        for job in range(cells, cells + 2000):
            poster.post(Post("running", job))
            poster.post(Post("computed", job, 0.005))
            time.sleep(0.005)
        own, seconds = time.thread_time() - used, time.monotonic() - start
        share = (time.process_time() - before - own) / seconds
        assert monitor.left <= cells
    poster.close()
    return {"share": share, "seconds": seconds}


def _used(command: list[str]) -> dict[str, float]:
    """CPU seconds and wall seconds of a command, and its largest memory in bytes."""
    start = time.perf_counter()
    child = subprocess.Popen(command, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise subprocess.CalledProcessError(child.returncode, command)
    return {
        "cpu": used.ru_utime + used.ru_stime,
        "wall": time.perf_counter() - start,
        "memory": used.ru_maxrss * 1024.0,
    }


def _sweep(*arguments: str) -> None:
    where = () if any(a.startswith("paths.outputs") for a in arguments) else ("paths.outputs=" + tempfile.mkdtemp(),)
    command = [sys.executable, str(ROOT / "scripts" / "sweep.py"), *arguments, *where]
    subprocess.run(command, check=True, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


PARTS: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "launchers": launchers,
    "slurm": slurm,
    "store": store,
    "million": million,
}


def blocks(measured: dict[str, Any]) -> dict[str, str]:
    """The table of the page."""
    lines: list[tuple[str, str, str]] = []
    for kind, found in measured.get("launchers", {}).items():
        if kind != "how":
            name = f"two processes against one, {found['cells']} cells, {kind}"
            lines.append((name, f"{number(found['ratio'])} times", _rates(found)))
    if "ratio" in (found := measured.get("slurm", {})):
        name = f"two tasks of Slurm against two processes, {found['cells']} cells, trivial"
        lines.append((name, f"{number(found['ratio'])} times", _rates(found)))
    if found := measured.get("store"):
        lines += [_line(f"{found['cells']} cells: a finished sweep is planned again", found["planning"])]
        lines += [_line(f"{found['cells']} cells: `collect.py`", found["collecting"])]
        share = f"{100 * found['board']['share']:.2g} % of a core"
        lines += [(f"{found['cells']} cells: looking at the board, 200 more a second", share, "")]
    if found := measured.get("million"):
        lines += [(f"{found['cells']} cells: written and packed", f"{found['filling']['cpu']:.0f} CPU s", _size(found))]
        lines += [_line(f"{found['cells']} cells: their names are read", found["names"])]
        lines += [_line(f"{found['cells']} cells: all their rows are read, batch by batch", found["rows"])]
    how = next(part["how"] for name, part in measured.items() if name != "machine")
    revision = f"{how['revision'][:12]}{' with uncommitted changes' if how['dirty'] else ''}"
    where = f"{words(measured['machine'])}; {how['date']}, revision {revision}, while other work ran on both cores."
    return {"sweeps": f"{where}\n\n{table(('what', 'measured', 'beside'), lines)}"}


def _line(name: str, used: dict[str, float]) -> tuple[str, str, str]:
    return name, f"{used['cpu']:.0f} CPU s", f"{used['wall']:.0f} s, {used['memory'] / 2**30:.2g} GiB"


def _rates(found: dict[str, Any]) -> str:
    shown = (f"{who} {', '.join(number(rate) for rate in rates)}" for who, rates in found["rates"].items())
    return f"cells/s by round: {'; '.join(shown)}"


def _size(found: dict[str, Any]) -> str:
    return f"{found['files']} files, {found['bytes'] / 2**30:.2g} GiB"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--part", action="append", choices=list(PARTS), help="can be repeated; others keep their results"
    )
    parser.add_argument("--rounds", type=int, default=3)
    for name, default in {
        "trivial": 3000,
        "slow": 300,
        "packed": 10_000,
        "cells": 100_000,
        "million": 1_000_000,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default, help="number of cells")
    return parser


if __name__ == "__main__":
    sys.exit(main())
