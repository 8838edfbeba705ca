"""What pages print for a reader to run does run: all of their Python, and each command that takes seconds.

Where a page loads SmolLM2 the tiny random model stands in for it, and sizes are cut as `SMALLER` and `SECONDS` say.
test_pages.py runs README's Python as it is printed; test_commands.py checks the arguments of all commands.
"""

import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from attention_coresets.models import language_models
from attention_coresets.study.config import REPOSITORY
from command_line import Outcome, Shell
from printed import PAGES, commands, python_blocks

WITH_PYTHON = [page for page in PAGES if page.stem != "README" and python_blocks(page)]
SMALLER = {":2048]": ":160]", "max_new_tokens=64": "max_new_tokens=4", "max_new_tokens=256": "max_new_tokens=4"}
SMALLER |= {"size=512": "size=40"}

TINY = ("cache.n=64", "cache.d=4", "heads=2", "sizes=[8,16]", "adversary=tiny", "compute.threads=1")
# run, each list in a folder of its own, at tier smoke in the place of quick: a pattern of the command -> arguments that
# cut it short
SECONDS: dict[str, dict[str, tuple[str, ...]]] = {
    "own": {
        "name=mine": (*TINY, "rho=1"),
        "show.py mine": (),
        "page.py mine": (),
        "show.py$": (),
        "running.py$": (),
    },
    "study": {
        "coreset=uniform rho=1 seed=0": ("adversary=tiny",),
        "coreset.refinement=minimax": ("cache.d=4", "adversary=tiny"),
        "experiment=lower_bound_antipodal": ("compute.threads=1",),
        "collect.py --tier quick": (),
        "fit.py --tier quick": ("--replicates", "50"),
        "figures.py --tier quick": (),
        "report.py$": (),
    },
    "files": {
        "compress.py cache.npz": (),
        "compress.py mine.npz .*--epsilon": (),
        "compress.py mine.npz .*--size": ("--size", "8"),
        "capture.py": ("--model", "tiny-random", "--tokens", "32", "--queries", "4"),
    },
}
MAKE = {
    "own": {"results/own/mine/index.html", "results/own/mine/table.parquet"},
    "study": {
        "results/smoke/table.parquet",
        "results/smoke/fits.json",
        "figures/smoke/antipodal.png",
        "paper_repro.md",
    },
    "files": {"cache.coreset.safetensors", "mine.coreset.safetensors"},
}
# slower, at tier smoke too
SMOKE = [
    f"experiment={name} tier=quick$"
    for name in (
        *("epsilon_rate", "lower_bound_exponents", "upper_bound", "hardness_search", "lower_bound_orthonormal"),
        *("adversary", "small_caches", "optimum", "league", "league_unseen", "certified", "real_errors"),
        *("real_sizes", "real_sizes_gemma", "real_tasks_gemma", "real_ablation", "real_lead"),
    )
]
# not run here, and why
ELSEWHERE = {
    "tier=full": "a GPU or many cores; its grid is laid out by test_commands.py",
    "tier=reduced launcher=joblib": "hours; its grid is laid out by test_commands.py",
    "tracking=wandb": "run by test_dashboards.py",
    "tune=": "run by test_sweep.py",
    "plugins=": "run by test_pages.py",
    "--tier reduced": "a minute of the committed results each; run by test_page.py, test_show.py, test_sweep.py",
    "verify.py": "computes rows of hours of work again; run by test_audit.py",
    "heads.py": "minutes of a real model; run by test_structure.py",
    "mutate.py": "hours; run by test_mutate.py",
    "benchmarks/run.py": "minutes; run by test_benchmarks.py",
    "running.py SWEEP": "needs a sweep that runs; run by test_status.py",
    "^bash ": "set-up, the tests themselves, every experiment: CI",
    "^(source|export) ": "the shell's own",
    "^pip install": "changes the environment",
    "^wandb ": "another program, in part with an account",
}


class Letters:
    """Stands in for a tokenizer: a token a byte."""

    def __call__(self, text: str, return_tensors: str) -> "Letters":
        self.input_ids = torch.tensor([list(text.encode()[:4000])])
        return self


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs transformers")
@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_python_of_a_page_runs_block_after_block(page, tmp_path, monkeypatch, capsys):
    model, _, origin = language_models.load_model(language_models.TINY)
    monkeypatch.setattr(language_models, "load_model", lambda name: (model, Letters(), origin))
    monkeypatch.chdir(tmp_path)
    for name in ("README.md", "results"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    names: dict = {}
    for block in python_blocks(page):
        exec(_cut(block), names)
        assert capsys.readouterr().out.strip()  # each block ends in something to see


def _cut(block: str) -> str:
    for printed, short in SMALLER.items():
        block = block.replace(printed, short)
    return block


def test_each_size_that_is_cut_is_on_a_page():
    printed = "\n".join(block for page in WITH_PYTHON for block in python_blocks(page))
    assert [size for size in SMALLER if size not in printed] == []


def test_every_command_of_a_page_is_run_or_said_why_not():
    patterns = (*(pattern for run in SECONDS.values() for pattern in run), *SMOKE, *ELSEWHERE)
    assert [one for one in commands() if sum(bool(re.search(pattern, one)) for pattern in patterns) != 1] == []
    assert [pattern for pattern in patterns if not any(re.search(pattern, one) for one in commands())] == []


@pytest.fixture
def shell(tmp_path: Path, monkeypatch, capfd) -> Shell:
    monkeypatch.setenv("ATTENTION_CORESETS_CAPTURES", str(tmp_path / "captures"))
    return Shell(tmp_path, monkeypatch, capfd)


@pytest.mark.parametrize("which", SECONDS)
def test_cheap_commands_run(which, shell, rng):
    for name in ("cache.npz", "mine.npz"):
        keys, values = rng.normal(size=(2, 2, 24, 3)) / 3
        np.savez(shell.directory / name, keys=keys, values=values)
    for pattern, more in SECONDS[which].items():
        ran = given(shell, pattern, more)
        assert ran.code == 0, f"{pattern}: {ran.err}"
    made = {path.relative_to(shell.directory).as_posix() for path in shell.directory.rglob("*") if path.is_file()}
    assert made >= MAKE[which]


@pytest.mark.slow
@pytest.mark.parametrize("pattern", SMOKE)
def test_experiments_run_at_their_smallest(pattern, shell):
    ran = given(shell, pattern, ("compute.threads=1",))
    assert ran.code == 0, ran.err
    assert ran.summary.endswith(" 0 failed")


def given(shell: Shell, pattern: str, more: tuple[str, ...]) -> Outcome:
    """Runs the command that the pattern finds, with arguments that replace or follow its own, in the shell's folder."""
    (command,) = (one for one in commands() if re.search(pattern, one))
    small = command.replace("tier=quick", "tier=smoke").replace("--tier quick", "--tier smoke")
    _, path, *arguments = shlex.split(small)
    replaced = tuple(word.partition("=")[0] + "=" for word in more if "=" in word)
    kept = [word for word in arguments if not word.startswith(replaced)]
    return shell.script(Path(path).stem, *kept, *more)
