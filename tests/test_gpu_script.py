"""scripts/gpu.sh before a GPU is at hand: its smoke tier runs on the CPU of a bare machine, and its results count."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import page, store
from benchmarks.gpu import PREFIX, journal, predicted, profiles
from benchmarks.gpu.__main__ import NO_DEVICE, STEPS, main
from benchmarks.records import Ratio, Row
from command_line import REPOSITORY

BARE = Path(__file__).parent / "bare"
ROW, RATIO = Row("walk", "ours", 96, seconds=1.0, repeats=1), Ratio("time", 2.0, target="≤ 5", verdict="pass")


def bare(*command: str) -> subprocess.CompletedProcess[str]:
    """A command where neither Hydra nor beartype is installed, and one thread is all there is."""
    environment = os.environ | {
        "PYTHON": sys.executable,
        "PYTHONPATH": f"{REPOSITORY / 'src'}{os.pathsep}{BARE}",
        "OMP_NUM_THREADS": "1",
        "PYTEST_ADDOPTS": "-p no:hydra_pytest",  # an entry point that a bare machine lacks too
    }
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


def test_the_bare_machine_has_neither_hydra_nor_beartype():
    for name in ("hydra", "omegaconf", "beartype"):
        done = bare(sys.executable, "-c", f"import {name}")
        assert f"No module named '{name}'" in done.stderr


def test_pages_and_figures_are_read_without_hydra():
    """Tests of a GPU machine import them, and the smoke run below would take a minute to say that they cannot."""
    package = "attention_coresets.analysis"
    walk = f"[import_module(m.name) for m in walk_packages({package}.__path__, '{package}.')]"
    start = f"from importlib import import_module; from pkgutil import walk_packages; import {package}"
    done = bare(sys.executable, "-c", f"{start}; print(len({walk}))")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> tuple[Path, str]:
    """The folder of a smoke run on a bare machine, and what it said."""
    folder = tmp_path_factory.mktemp("gpu")
    done = bare("bash", "scripts/gpu.sh", "--smoke", "--results", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.mark.timeout(900)  # a minute of one idle core, which the suite leaves to nobody
def test_every_step_runs_on_the_cpu(smoke):
    folder, said = smoke
    (path,) = folder.glob("*.smoke.json")
    parts = store.load(path).parts
    assert set(parts) == {PREFIX + name for name in (*STEPS, "tests", "triton")}
    for name, part in parts.items():
        assert part.notes[-1].startswith("done in "), (name, part.notes, said)
        if name.removeprefix(PREFIX) not in ("tests", "triton", "profiles"):
            assert part.rows
            assert all(row.seconds > 0 for row in part.rows)
    assert "| rho_rate: walk_tilted |" in path.with_suffix(".md").read_text()
    assert "Self CPU" in parts[f"{PREFIX}profiles"].notes[0]
    assert len((folder / "gpu.smoke.jsonl").read_text().splitlines()) > 50


def test_what_devices_must_agree_on_does(smoke):
    """On the CPU the two sides are one device, so that each sentence says so."""
    parts = store.load(next(smoke[0].glob("*.smoke.json"))).parts
    assert "the same points kept as on the CPU: 2 of 2 heads" in parts[f"{PREFIX}halvings"].notes
    ceilings = [note for note in parts[f"{PREFIX}certificates"].notes if "ceilings" in note]
    assert len(ceilings) == 3
    assert all("agree with the CPU's" in note and "none below the ascent" in note for note in ceilings)
    assert [one.verdict for one in parts[f"{PREFIX}llama"].ratios] == ["pass"] * 3


def test_gpu_tests_are_collected_without_hydra_and_beartype(smoke):
    """And each says why it does not run, where torch sees no GPU."""
    (note,) = store.load(next(smoke[0].glob("*.smoke.json"))).parts[f"{PREFIX}tests"].notes
    assert "skipped" in note or torch.cuda.is_available()
    assert "failed" not in note


def test_without_a_device_one_line_says_so(tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(["walks", "--results", str(tmp_path)]) == NO_DEVICE
    assert "sees no CUDA device here; --smoke runs on the CPU" in capsys.readouterr().err


def test_a_failing_step_is_recorded_and_leaves_what_it_had_found(tmp_path, monkeypatch, capsys):
    def measure(tier, device):
        yield ROW
        raise RuntimeError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(profiles, "measure", measure)
    assert main(["profiles", "--tier", "smoke", "--device", "cpu", "--results", str(tmp_path)]) == 1
    assert "Traceback" in capsys.readouterr().err
    _, parts = journal.gathered(tmp_path / "gpu.smoke.jsonl")
    assert parts[f"{PREFIX}profiles"].rows == [ROW]
    assert parts[f"{PREFIX}profiles"].notes == ["RuntimeError: CUDA out of memory. Tried to allocate"]


@pytest.fixture
def cut_short(tmp_path) -> Path:
    """A journal whose last line was not written to its end."""
    path = journal.path_of(tmp_path, "full")
    described = {"processor": "x", "cores": 1, "memory_gib": 1, "gpu": "NVIDIA H100"}
    how = dict.fromkeys(("date", "revision", "python", "torch", "numpy", "numba", "goodpoints", "blas"), "1")
    provenance = how | {"dirty": False, "threads": 1}
    journal.write(path, "walks", "began", {"machine": described, "provenance": provenance})
    for found in (ROW, RATIO, "a note"):
        journal.record(path, "walks", found)
    for step, code in (("walks", 124), ("tests", 1), ("triton", None)):
        journal.write(path, step, "ended", {"code": code, "seconds": 75, "words": "" if code == 124 else "words"})
    with path.open("a") as file:
        file.write('{"step": "halvi')
    return path


def test_a_journal_that_was_cut_short_still_counts(cut_short):
    machine, parts = journal.gathered(cut_short)
    assert machine["gpu"] == "NVIDIA H100"
    assert (parts["gpu walks"].rows, parts["gpu walks"].ratios) == ([ROW], [RATIO])
    assert parts["gpu walks"].notes == ["a note", "TIMED OUT after 75 s"]
    assert parts["gpu tests"].notes == ["FAILED with code 1 after 75 s: words"]
    assert parts["gpu triton"].notes == ["words"]


def test_a_damaged_line_in_its_middle_is_named(cut_short):
    cut_short.write_text("{\n" + cut_short.read_text())
    with pytest.raises(ValueError, match=r"gpu\.jsonl, line 1"):
        journal.gathered(cut_short)
    cut_short.write_text(json.dumps({"step": "walks", "kind": "ended", "content": {}}) + "\n")
    with pytest.raises(ValueError, match="no step began"):
        journal.gathered(cut_short)


def test_the_page_shows_what_was_measured_in_place_of_not_measured(cut_short):
    text = page.PAGE.read_text()
    assert "Not measured" in page.filled(text, [])
    machine, parts = journal.gathered(cut_short)
    shown = page.filled(text, [store.Measured("h100", machine, "full", parts)])
    assert "Not measured" not in shown
    assert "NVIDIA H100" in shown
    assert "- TIMED OUT after 75 s" in shown
    assert "| time | 2 | ≤ 5 | pass |" in shown  # among the targets


def test_predictions_by_hand():
    """A launch-bound task is its launches and its waits; one of many flops is its flops."""
    bound = predicted.Count("x", launches=1e6, waits=1e4)
    assert bound.seconds == pytest.approx(8.0 + 0.2)
    assert predicted.Count("x", launches=10, waits=0, flops=3e13).seconds == pytest.approx(1.0)
    large = predicted.COUNTS[2]
    assert large.launches == 37 + 2 * 171 + 10 * 18  # blocks of 96; widths fall below 0.8 of what they were
    assert large.programs == pytest.approx(16384 * (8e-6 + 65 * 0.55 * 16384 * 8 / 1e11))
    matrix = 16384**2
    assert large.seconds == pytest.approx(0.899 + 8 / 3 * 16384 * matrix / 30e12 + 8 * 144.5 * matrix / 2e12, rel=1e-3)
