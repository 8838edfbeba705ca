"""docs/which.md: what it recommends is what the rows and the benchmarks say."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from attention_coresets.analysis.parts.results import Results, ResultsError
from attention_coresets.analysis.report.costs import costs, speeds, streamed
from attention_coresets.analysis.report.which import PROVEN, which
from attention_coresets.coresets.arms import ARMS
from command_line import REPOSITORY
from synthetic_results import synthetic_heads, synthetic_table

BENCHMARKS = REPOSITORY / "benchmarks" / "results"


@pytest.fixture(scope="module")
def results() -> Results:
    return Results("quick", synthetic_table(), [], synthetic_heads())


def cells(text: str, start: str) -> list[str]:
    """The cells of the line of a table that begins so."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_least_error_is_recommended(results) -> None:
    rows = results.rows("league").query("cache != 'equal_keys'")  # where one is as good as exact
    rows = rows.assign(log=np.log(rows["error"]))
    keys = ["cache", "n", "d", "rho", "size"]
    wide = rows.groupby([*keys, "arm"])["log"].mean().unstack()
    over = np.exp(wide.sub(wide["walk_tilted"], axis=0).mean())
    text = which(results, BENCHMARKS)
    answer = cells(text, "the least error, weights of any kind")
    assert answer[1] == f"`{over.idxmin()}`"
    assert answer[2].startswith(f"error {over.min():.3g} [")
    models = rows.groupby("arm")["model"].first()
    tilted = over[models[models == "tilted"].index]
    assert cells(text, "the same, tilted weights only")[1] == f"`{tilted.idxmin()}`"


def test_the_least_ceiling_is_that_of_the_arms_made_for_one(results) -> None:
    rows = results.rows("certified")
    keys = ["cache", "n", "d", "seed", "head", "rho", "size"]
    rows = rows.loc[rows.groupby(keys)["error"].transform("min") > 1e-6]  # some are as good as exact elsewhere
    wide = rows.assign(log=np.log(rows["certificate"])).pivot_table("log", keys, "arm")
    over = np.exp(wide.sub(wide["walk_tilted"], axis=0).mean())
    answer = cells(which(results, BENCHMARKS), "the least proven ceiling")
    assert answer[1] == f"`{over.idxmin()}`"
    assert answer[2].startswith(f"certificate {over.min():.3g} [")


def test_every_arm_has_a_line_and_only_proven_ones_say_so(results) -> None:
    text = which(results, BENCHMARKS)
    for arm in set(results.rows("league")["arm"]):
        assert cells(text, f"{arm} (")[-1] == ("yes" if arm in PROVEN else "no")


@pytest.mark.parametrize("arm", PROVEN)
def test_the_proof_is_of_one_walk_to_the_size(arm) -> None:
    """docs/theory.md, section Balancing: no halving, no exchange, no other scale."""
    assert ARMS[arm].construction == "gram_schmidt_walk"
    assert set(ARMS[arm].parameters) <= {"model"}


def test_costs_are_the_benchmarks(tmp_path) -> None:
    content = json.loads((BENCHMARKS / "intel-xeon-processor-2-cores.json").read_text())["parts"]["constructions"]
    found = costs(BENCHMARKS)["gram_schmidt_walk"]
    times = sorted(
        (row["n"], row["fastest"])
        for row in content["rows"]
        if (row["case"], row["m"], row["d"]) == ("gram_schmidt_walk", 256, 16)
    )
    largest = sorted(dict(times).items())[-2:]
    rate = math.log(largest[1][1] / largest[0][1]) / math.log(largest[1][0] / largest[0][0])
    assert found.exponent == pytest.approx(rate, abs=0.3)
    assert found.memory is not None
    assert found.memory >= 4096**2 * 8  # the inverse that the walk holds
    assert costs(tmp_path) == {}
    assert streamed(tmp_path) is None


def test_faster_arms_are_faster_at_every_dimension(results, tmp_path) -> None:
    """Times are of the benchmark, where all arms run in the same rounds; of a sweep they are not."""
    seconds = {
        "walk_tilted": (3.0, 6.0),
        "greedy_tilted": (0.2, 1.9),
        "uniform": (0.2, 0.3),
    }
    rows = [
        {"case": arm, "seconds": each[k], "heads": 3, "d": d}
        for arm, each in seconds.items()
        for k, d in enumerate((8, 64))
    ]
    parts = {name: {"rows": [], "fits": []} for name in ("constructions", "streaming")} | {"arms": {"rows": rows}}
    (tmp_path / "machine.json").write_text(json.dumps({"tier": "full", "parts": parts}))
    assert speeds(tmp_path)["greedy_tilted"].times == pytest.approx((6 / 1.9, 15.0))
    text = which(results, tmp_path)
    assert cells(text, "an answer at least 5 times")[1] == "`uniform`"
    assert cells(text, "greedy_tilted (")[3] == "66.7 ms to 633 ms"
    assert "an answer at least" not in which(results, tmp_path / "none")


def test_without_a_league_nothing_is_said(results) -> None:
    table = results.table.query("experiment != 'league'")
    assert which(Results("quick", table, []), BENCHMARKS) == ""


def test_a_damaged_benchmark_is_named(tmp_path: Path) -> None:
    (tmp_path / "machine.json").write_text("{")
    with pytest.raises(ResultsError, match=r"machine\.json is damaged"):
        costs(tmp_path)
