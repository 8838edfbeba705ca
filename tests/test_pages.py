"""The pages that newcomers read: their code runs as printed, their links lead somewhere, their tables are whole."""

import importlib.util
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attention_coresets.analysis.report.readme_numbers import FOUND
from attention_coresets.analysis.topics.contents import CLAIMS
from attention_coresets.coresets.catalogue import CONSTRUCTIONS
from command_line import Shell
from synthetic_results import synthetic_results

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
README = (ROOT / "README.md").read_text()
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
HAS_MODELS = importlib.util.find_spec("transformers") is not None
# README's blocks of Python, in order
LIBRARY, MODEL, OWN = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


pytestmark = pytest.mark.usefixtures("registries")


@pytest.fixture
def all_digits():
    """Tensors print every digit, so that printed numbers compare as exactly as the numbers do."""
    before = torch._tensor_str.PRINT_OPTS.precision
    torch.set_printoptions(precision=15)
    yield
    torch.set_printoptions(precision=before)


@pytest.mark.usefixtures("all_digits")
def test_the_library_as_printed(capsys):
    exec(LIBRARY, {})
    shapes, bounds, again = capsys.readouterr().out.splitlines()
    assert shapes == "torch.Size([128]) torch.Size([128])"
    found, ceiling, again = (
        float(re.findall(r"tensor\(\[?([0-9.]+)", words)[0]) for words in (*bounds.split(" <= ")[::2], again)
    )
    assert 0 < found <= ceiling
    assert again == pytest.approx(found, rel=1e-9)


def test_the_library_as_printed_takes_heads(capsys):
    exec(LIBRARY.replace("n=1024, d=4, seed=0", "n=64, d=4, seed=0, heads=2").replace("size=128", "size=16"), {})
    shapes, bounds, again = capsys.readouterr().out.replace("\n ", "").splitlines()
    assert shapes == "torch.Size([2, 16]) torch.Size([2, 16])"
    assert bounds.count("tensor([") == 2
    assert again.startswith("tensor([[")


@pytest.mark.skipif(not HAS_MODELS, reason="needs transformers")
def test_the_model_as_printed(capsys):
    exec(MODEL, {})
    before, after = (int(number) for number in re.findall(r"\d+", capsys.readouterr().out))
    assert before == 2 * 2 * 512 * 2 * 16 * 4  # layers, keys and values, tokens, KV heads, dimension, bytes of float32
    assert after < 0.3 * before


def test_the_construction_of_ones_own_as_printed(tmp_path, monkeypatch, capfd):
    (command,) = re.findall(r"^python scripts/sweep.py ('plugins=.*)$", README, re.MULTILINE)
    (tmp_path / "my_module.py").write_text(OWN)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    ran = Shell(tmp_path, monkeypatch, capfd).sweep(*shlex.split(command), "adversary=tiny")
    assert ran.code == 0, ran.err
    assert "top_norm (unweighted) on sphere: n=1024" in ran.out
    sys.modules.pop("my_module")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(path, tmp_path):
    if "transformers" in path.read_text() and not HAS_MODELS:
        pytest.skip("needs transformers")
    assert path.read_text().count("\n") < 40
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:numba cannot be imported:RuntimeWarning", str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) >= 3


def test_the_first_page_is_short():
    assert README.count("\n") <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link.partition("#")[0]).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_on_pages_are_there(page):
    """From the root of the repository; NAME stands for a name to be chosen."""
    named = re.findall(r"(?<![\w./-])(?:scripts|docs|conf|examples|tests|benchmarks)/[\w/]+\.\w+", page.read_text())
    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []


def test_every_construction_is_in_the_table():
    section = README.partition("## Constructions\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(CONSTRUCTIONS)


def test_every_page_is_reached_from_the_first():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)\s#]+\.md)", page.read_text())
        waiting += [(page.parent / link).resolve() for link in links if "://" not in link]
    assert set(PAGES) <= reached


def test_numbers_of_the_first_page_are_those_of_the_report():
    """Each number that README has from a claim is the one that decides the claim in paper_repro.md."""
    claims = {
        "found_constant": "constant_sigma",
        "found_beta": "beta_bound",
        "found_league_free": "league_free",
        "found_league_fixed": "league_portfolio_tilted",
        "found_loss": "real_loss_8",
        "found_facts": "facts_8",
        "found_facts_long": "lengths_facts",
    }
    report = (ROOT / "paper_repro.md").read_text()
    for block, claim in claims.items():
        row = next(line for line in report.splitlines() if line.startswith(f"| `{claim}` "))
        (words,) = re.findall(rf"<!-- numbers:{block} -->(.*?)<!--", README)
        assert f"| {words} " in row


def test_first_page_numbers_are_computed():
    results = synthetic_results()
    empty = replace(results, table=results.table.iloc[:0], fits=[], heads=None)
    verdicts = FOUND["found_verdicts"](results)
    total, *counts = (int(count) for count in re.findall(r"\d+", verdicts.partition(";")[0]))
    assert total == len(CLAIMS) == sum(counts)
    assert FOUND["found_verdicts"](empty).startswith(f"{len(CLAIMS)} claims: {len(CLAIMS)} not run;")
    assert 0.5 < float(FOUND["found_constant"](results)) < 1.3
    arms = results.table["arm"].str.replace("minimax_", "portfolio_")
    fixed = FOUND["found_league_fixed"](replace(results, table=results.table.assign(arm=arms)))
    assert float(fixed.partition(" [")[0]) == pytest.approx(0.5, rel=0.02)
    assert all(block(empty) == "" for name, block in FOUND.items() if name != "found_verdicts")
