"""The page in a real browser, without a network: it loads, its controls change its charts, its numbers are the table's.

Skipped where there is no Chromium; scripts/chromium.sh installs Debian's.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attention_coresets.analysis.page.panel import packed
from attention_coresets.analysis.page.write import digest, digest_of
from attention_coresets.analysis.parts.results import Results, load
from attention_coresets.analysis.report.decided import decided
from attention_coresets.analysis.stats.planned_fits import fit_all
from attention_coresets.analysis.topics.contents import PLANS
from browser import Browser, chromium
from command_line import REPOSITORY, script
from synthetic_results import synthetic_heads, synthetic_table, write_fits

CHROMIUM = chromium()
COMMITTED = REPOSITORY / "results" / "reduced"
MOST_BYTES = 4e6


@pytest.fixture(scope="module")
def results(page) -> Results:
    return load(page.parent)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The page of a tier whose numbers are known; of the laws it has one plan's."""
    folder = tmp_path_factory.mktemp("results") / "quick"
    folder.mkdir()
    table = synthetic_table()
    table.to_parquet(folder / "table.parquet")
    synthetic_heads().to_parquet(folder / "heads.parquet")
    write_fits(folder, fit_all(table, [plan for plan in PLANS if plan.name == "epsilon_rate"], replicates=25))
    assert script("page").main(["--tier", "quick", "--results", str(folder.parent)]) == 0
    return folder / "index.html"


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium: run `bash scripts/chromium.sh`")
    with Browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as browser:
        browser.open(page)
        yield browser


def drawn(browser: Browser, name: str) -> list[dict]:
    """The rows that a chart holds at the moment, from the chart's own data."""
    return json.loads(browser.run(f"JSON.stringify(shown.get({name!r}).rows)"))


def pick(browser: Browser, panel: str, control: str, value: object) -> None:
    """Choose an option as a reader would."""
    browser.run(
        f"(select => {{ select.value = {str(value)!r}; select.dispatchEvent(new Event('change')); }})"
        f"(document.querySelector('#{panel} [data-name=\"{control}\"]'))"
    )
    browser.settle()


def marks(browser: Browser, panel: str) -> int:
    """Points that are to be seen."""
    return browser.run(f"document.querySelectorAll('#{panel} .mark-symbol.role-mark path').length")


def test_it_loads_without_errors_and_asks_for_nothing_else(browser, page) -> None:
    assert browser.complaints == []
    assert browser.requests == [page.resolve().as_uri()]
    names = browser.run("panels.map(panel => panel.name)")
    assert names == ["sizes", "constants", "floors", "ceilings", "league", "errors", "heads", "language", "geometry"]
    for name in names:
        assert marks(browser, name) > 0, name
        label = browser.run(f"document.querySelector('#{name} [role=graphics-document]').getAttribute('aria-label')")
        assert len(label) > 40, name  # what those read who do not see it


def test_verdicts_come_first_and_are_the_reports(browser, results) -> None:
    assert browser.run("document.querySelector('main section').id") == "verdicts"
    outcomes = decided(results)
    lines = browser.run(
        "[...document.querySelectorAll('#verdicts tbody tr')].map(row => [row.dataset.verdict, row.cells[1].innerText])"
    )
    assert [(word, name.split()[0]) for word, name in lines] == [(o.status, o.claim.id) for o in outcomes.values()]
    word = lines[0][0]
    browser.run(f"wanted.value = {word!r}; wanted.dispatchEvent(new Event('change'))")
    left = browser.run("[...document.querySelectorAll('#verdicts tbody tr')].filter(row => !row.hidden).length")
    assert left == sum(status == word for status, _ in lines)
    browser.run("wanted.value = ''; wanted.dispatchEvent(new Event('change'))")


def test_controls_change_what_is_drawn_and_numbers_are_the_tables(browser, results) -> None:
    pick(browser, "errors", "experiment", "rho_rate")
    pick(browser, "errors", "family", "antipodal")
    pick(browser, "errors", "rho", 2)
    browser.run("document.querySelector('#errors .every').click()")
    browser.settle()
    table = results.table.query("experiment == 'rho_rate' and cache == 'antipodal' and rho == 2")
    plain = table.groupby(["arm", "size"])["error"].median()
    found = {(row["arm"], row["size"]): row for row in drawn(browser, "errors")}
    assert set(found) == set(plain.index)
    for key, row in found.items():
        assert row["error"] == pytest.approx(plain[key], rel=1e-3)
        assert row["low"] < row["error"] < row["high"]
        assert row["over"] == "5 caches"
        assert row["command"] == "python scripts/sweep.py experiment=rho_rate tier=quick"
        here = table.query("arm == @key[0] and size == @key[1]")
        assert set(row["cells"].split()) == set(here["cell"])
    assert marks(browser, "errors") == len(plain)


def test_an_axis_can_be_changed_and_arms_left_out(browser, results) -> None:
    pick(browser, "errors", "experiment", "d_rate")
    pick(browser, "errors", "axis", "d")
    assert {row["x"] for row in drawn(browser, "errors")} == {4, 8, 16}
    assert "dimension d" in browser.run("document.querySelector('#errors svg').textContent")
    before = {row["arm"] for row in drawn(browser, "errors")}
    box = "document.querySelector('#errors [data-name=\"arm uniform\"]')"
    browser.run(f"{box}.click()")
    browser.settle()
    assert {row["arm"] for row in drawn(browser, "errors")} == before - {"uniform"}
    browser.run(f"{box}.click()")
    pick(browser, "errors", "axis", "size")


def test_sizes_are_censored_as_the_table_says_and_laws_are_the_fits(browser, results) -> None:
    pick(browser, "sizes", "experiment", "epsilon_rate")
    (law,) = (r for r in results.laws("epsilon_rate") if r["fixed"]["arm"] == "uniform")
    const, gamma = (law["coefficients"][name]["value"] for name in ("const", "gamma"))
    medians = results.table.query("experiment == 'epsilon_rate' and arm == 'uniform'").groupby("size")["error"].median()
    rows = [row for row in drawn(browser, "sizes") if row["arm"] == "uniform"]
    assert {row["status"] for row in rows} >= {"interval", "right"}
    for row in rows:
        assert (row["status"] == "right") == (medians.iloc[-1] > row["epsilon"])
        if row["status"] == "interval":
            assert medians[row["lo"]] > row["epsilon"] >= medians[row["hi"]]
            assert row["law"] == pytest.approx(math.exp(const - gamma * math.log(row["epsilon"])), rel=1e-3)


def test_the_keyboard_reaches_and_moves_the_controls(browser) -> None:
    browser.run("document.querySelector('#league [data-name=competition]').focus()")
    before = browser.run("panels.find(panel => panel.name === 'league').chosen.competition")
    for kind in ("rawKeyDown", "keyUp"):
        browser.send("Input.dispatchKeyEvent", type=kind, key="ArrowDown", code="ArrowDown", windowsVirtualKeyCode=40)
    browser.settle()
    assert browser.run("panels.find(panel => panel.name === 'league').chosen.competition") != before
    assert browser.run("document.activeElement.dataset.name") == "competition"  # and stays there


def test_the_pointer_shows_where_a_point_comes_from(browser) -> None:
    x, y = browser.run(
        "(path => { path.scrollIntoView({block: 'center'}); const box = path.getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2]; })"
        "(document.querySelector('#league .mark-symbol.role-mark path'))"
    )
    browser.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    browser.run("new Promise(done => setTimeout(done, 300))")
    told = browser.run("document.querySelector('#vg-tooltip-element').innerText")
    for word in ("95 % interval", "families and dimensions", "revision", "experiment=league tier=quick"):
        assert word in told


def test_all_data_can_be_taken_away(browser) -> None:
    text = browser.run(
        "new Promise(done => { const make = URL.createObjectURL;"
        " URL.createObjectURL = blob => { blob.text().then(done); return make(blob); };"
        " document.querySelector('#heads .download').click(); URL.createObjectURL = make; })"
    )
    head, *lines = text.splitlines()
    assert {"arm", "size", "value", "low", "high", "cells", "revisions", "command"} <= set(head.split(","))
    assert len(lines) == browser.run("panels.find(panel => panel.name === 'heads').all.length")


def test_the_points_are_a_table_too(browser) -> None:
    browser.run("document.querySelector('#geometry .rows').open = true")
    browser.run("new Promise(done => setTimeout(done, 100))")
    lines = browser.run("document.querySelectorAll('#geometry .rows tbody tr').length")
    assert lines == len(synthetic_heads())


def test_a_sweep_of_ones_own_has_a_page(browser, page, tmp_path) -> None:
    """Here of an experiment; of a sweep the same function makes it."""
    where = ["--results", str(page.parent.parent), "--outputs", str(tmp_path)]
    assert script("page").main(["epsilon_rate", "--tier", "quick", *where]) == 0
    path = tmp_path / "show" / "quick" / "epsilon_rate" / "index.html"
    browser.open(path)
    assert browser.complaints == []
    assert browser.run("panels.map(panel => panel.name)") == ["errors", "sizes"]
    assert "gram" not in browser.run("document.querySelector('#summary').innerText")
    assert "walk_tilted" in browser.run("document.querySelector('#summary').innerText")


# without a browser -------------------------------------------------------------------------------------------------


def test_columns_keep_their_values() -> None:
    rows = pd.DataFrame({"arm": ["b", "a", "b"], "error": [0.123456, np.nan, 2.0]})
    words = packed(rows, "arm")
    assert [words["words"][place] for place in words["places"]] == ["b", "a", "b"]
    assert packed(rows, "error") == {"numbers": [0.1235, None, 2]}


def test_the_committed_page_is_of_the_committed_results() -> None:
    page = (COMMITTED / "index.html").read_text(encoding="utf-8")
    assert digest_of(page) == digest(COMMITTED), "run `python scripts/page.py --tier reduced`"
    assert len(page.encode()) <= MOST_BYTES
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page)
