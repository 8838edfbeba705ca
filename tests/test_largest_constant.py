"""The constant of every row: its largest value, its trends and its ceilings, on rows of known laws."""

import math

import numpy as np
import pandas as pd
import pytest

from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.verdict import evaluate
from attention_coresets.analysis.topics.upper_bound import measures, prose, tables
from attention_coresets.analysis.topics.upper_bound.claims import CLAIMS
from synthetic_results import synthetic_results, synthetic_table


@pytest.fixture(scope="module")
def results() -> Results:
    return synthetic_results(noise=0.1)


def spoiled(constant: float, **changes) -> Results:
    """Three experiments of small constants, with one more row of the tilted walk, of this one."""
    table = synthetic_table(noise=0.1)
    table = table.loc[table["experiment"].isin(["d_rate", "rho_rate", "upper_bound"])]
    row = table.loc[(table["arm"] == "walk_tilted") & (table["experiment"] == "d_rate")].iloc[[0]]
    scale = math.sqrt(row["d"].iloc[0]) * math.exp(row["rho"].iloc[0] * row["sigma"].iloc[0])
    more = row.assign(error=constant * scale / row["size"], **({"seed": 77} | changes))
    return Results("quick", pd.concat([table, more], ignore_index=True), [])


def test_the_largest_is_that_of_every_experiment_by_hand(results):
    rows = results.table.loc[(results.table["arm"] == "walk_tilted") & results.table["error"].notna()]
    rows = rows.loc[rows["cache"] != "model"]
    constants = rows["size"] * rows["error"] / np.sqrt(rows["d"]) / np.exp(rows["rho"] * rows["sigma"])
    (found,) = measures.largest_of_all(results)
    assert found.estimate.value == pytest.approx(constants.max())
    worst = rows.loc[constants.idxmax()]
    assert found.setting.startswith(f"{worst['cache']}, n = {worst['n']}, d = {worst['d']}, ρ = {worst['rho']:g}")
    assert found.estimate.caches == len(measures.synthetic_walks(results))


def test_one_row_above_the_limit_contradicts_the_claim():
    (claim,) = CLAIMS
    assert evaluate([claim], spoiled(1.29))[claim.id].status == "held"
    high = evaluate([claim], spoiled(1.31))[claim.id]
    assert high.status == "contradicted"
    assert high.deciding[0].estimate.value == pytest.approx(1.31)
    assert "is at most 1.31 in every row" in prose.constant(spoiled(1.31))
    assert evaluate([claim], spoiled(9.0, arm="walk_unweighted"))[claim.id].status == "held"  # of the tilted walk alone


def test_a_coreset_that_two_experiments_share_counts_once(results):
    again = spoiled(1.2, experiment="rho_rate", seed=0)  # another error for the same coreset: the larger one stays
    assert len(measures.every_walk(again)) == len(measures.every_walk(spoiled(1e-9, experiment="rho_rate", seed=0)))
    assert measures.every_walk(again)[measures.CONSTANT].max() == pytest.approx(1.2)


def test_trends_are_the_laws_own_and_blind_to_more_caches_at_one_n(results):
    """Made as 0.1 d^{1/4} e^{-rho / 5}, twice that on a second cache that only n = 1024 has."""
    rows = measures.comparable(results)
    assert set(rows["head"]) == {0}
    assert set(rows["share"]) == {0.125, 0.5}
    found = measures.slopes(rows)
    assert found["log d"] == pytest.approx(0.25, abs=0.004)
    assert found["ρ"] == pytest.approx(-0.2, abs=0.004)
    assert found["log n"] == pytest.approx(0, abs=0.004)
    one = measures.slopes(rows.loc[rows["n"] == 256])
    assert math.isnan(one["log n"])
    assert one["log d"] == pytest.approx(0.25, abs=0.004)


def test_ceilings_are_the_constant_of_the_certificate(results):
    rows = measures.certified(results)
    assert set(rows["rho"]) == {3.0}
    np.testing.assert_allclose(rows["over_error"], 2.0)
    np.testing.assert_allclose(rows["certified"], 2 * rows[measures.CONSTANT])
    assert "| 64 | 12 |" in tables.ceilings(results)


def test_largest_medians_need_three_caches(results):
    rows = measures.every_walk(results)
    value, where = measures.largest_median(rows)
    each = rows.groupby(["cache", "cache_params", "rho", "size"])[measures.CONSTANT].agg(["median", "size"])
    assert value == pytest.approx(each.loc[each["size"] >= 3, "median"].max())
    assert where.count("=") == 4
    assert math.isnan(measures.largest_median(rows.iloc[:2])[0])


def test_the_table_has_a_line_a_family_and_their_sum(results):
    lines = [line.split(" | ") for line in tables.by_family(results).splitlines() if line.startswith("| ")][2:]
    counts = {line[0].strip("| "): int(line[1]) for line in lines}
    assert counts.pop("all") == sum(counts.values()) == len(measures.every_walk(results))
    assert {"sphere", "spread_norms", "signed_clusters", "model"} <= set(counts)
