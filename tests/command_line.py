"""Running scripts/sweep.py and scripts/collect.py in the test's own process, as a user would from a shell."""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from attention_coresets.study.store import Store

REPOSITORY = Path(__file__).resolve().parents[1]
PROBE = """# @package _global_
defaults:
  - override /cache: clusters
experiment: probe
sizes: ${at.${tier}.sizes}
at:
  smoke: {n: "64", seed: "0,1", sizes: [8, 16], adversary: tiny}
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      arm: uniform,halving_unweighted,walk_tilted
      cache.n: ${at.${tier}.n}
      cache.d: 4
      seed: ${at.${tier}.seed}
      adversary: ${at.${tier}.adversary}
"""


def probe(directory: Path) -> list[str]:
    """Arguments of an experiment that only the tests know: 6 cells of 2 rows, and where its results go."""
    path = directory / "conf" / "experiment" / "probe.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PROBE)
    where = [f"paths.results={directory / 'results'}", f"paths.outputs={directory / 'outputs'}"]
    return ["experiment=probe", "tier=smoke", f"hydra.searchpath=[file://{directory / 'conf'}]", *where]


def cells(results: Path) -> dict[str, float]:
    """Finished cells and the seconds that their adversary took."""
    store = Store(results)
    rows = [row for table in store.tables(set(store.finished())) for row in table.to_pylist()]
    return {row["cell"]: row["seconds_adversary"] for row in rows}


def script(name: str, folder: str = "scripts") -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def summary(self) -> str:
        """The closing line of a sweep, without its time."""
        return next(line for line in self.err.splitlines() if "computed," in line).rpartition(", in ")[0]


class Shell:
    """`sweep(...)`, `probe(...)` and `collect(...)` with results and outputs in a temporary directory."""

    def __init__(self, directory: Path, monkeypatch, capfd) -> None:
        self.directory, self.results, self.outputs = directory, directory / "results", directory / "outputs"
        self.monkeypatch, self.capfd = monkeypatch, capfd
        self.traceback = "0"
        monkeypatch.chdir(directory)

    def sweep(self, *arguments: str) -> Outcome:
        return self._run("sweep", [*arguments, *self.paths])

    def probe(self, *arguments: str) -> Outcome:
        """The probe experiment at the smoke tier."""
        return self._run("sweep", [*probe(self.directory), *arguments])

    def collect(self, *arguments: str) -> Outcome:
        return self._run("collect", [*arguments, "--results", str(self.results)])

    def restore(self, *arguments: str) -> Outcome:
        return self._run("restore", [*arguments, "--results", str(self.results)])

    def script(self, name: str, *arguments: str) -> Outcome:
        """Any script of the study, with those of its folders' options that it has."""
        folders = {"results": self.results, "outputs": self.outputs, "figures": self.directory / "figures"}
        folders |= {"root": self.directory}
        text = (REPOSITORY / "scripts" / f"{name}.py").read_text(encoding="utf-8")
        where = [word for key, path in folders.items() if f'"--{key}"' in text for word in (f"--{key}", str(path))]
        return self._run(name, [*arguments, *(self.paths if name == "sweep" else where)])

    @property
    def paths(self) -> list[str]:
        return [f"paths.results={self.results}", f"paths.outputs={self.outputs}"]

    @property
    def cells(self) -> dict[str, float]:
        """Finished cells and what each took, which tells a cell from the same one computed again."""
        return cells(self.results)

    def _run(self, name: str, arguments: list[str]) -> Outcome:
        self.monkeypatch.setattr(sys, "argv", [str(REPOSITORY / "scripts" / f"{name}.py"), *arguments])
        self.monkeypatch.setenv("HYDRA_FULL_ERROR", self.traceback)  # main sets it for Hydra
        self.capfd.readouterr()
        try:
            code = script(name).main()
        except SystemExit as stop:  # what the interpreter does with it: a text goes to stderr, exit code 1
            if isinstance(stop.code, str):
                print(stop.code, file=sys.stderr)
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return Outcome(code, *self.capfd.readouterr())
