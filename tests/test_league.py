"""The league: known ratios are recovered cell by cell, exact cells and missing arms are left out, intervals cover."""

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from attention_coresets import CACHES
from attention_coresets.analysis.parts import block
from attention_coresets.analysis.parts.arm_names import axis_of
from attention_coresets.analysis.parts.measured import Measured
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.status import status
from attention_coresets.analysis.report.decided import decided
from attention_coresets.analysis.report.readme_numbers import median_setting
from attention_coresets.analysis.stats.estimates import Estimate, clustered_mean
from attention_coresets.analysis.topics.ablation.measures import against_best
from attention_coresets.analysis.topics.contents import CLAIMS
from attention_coresets.analysis.topics.league import certified
from attention_coresets.analysis.topics.league import standings as league
from attention_coresets.analysis.topics.league.annealed import annealed_floor
from attention_coresets.analysis.topics.league.measures import advantage
from attention_coresets.analysis.topics.league.tables import league_block, league_section
from attention_coresets.analysis.topics.league.tolerances import BANDS
from attention_coresets.coresets.arms import ARMS, AXES, OWN, RECURSION, REFINEMENT, RULE, SCALE
from synthetic_results import LEAGUE_RATIO, synthetic_results

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return synthetic_results().rows(league.EXPERIMENT)


def results_of(rows: pd.DataFrame) -> Results:
    return Results("reduced", rows, [])


def table(errors: dict[str, dict[str, list[float]]], **columns) -> pd.DataFrame:
    """{family: {arm: errors of its heads}} as rows; an arm's model is the end of its label."""
    lines = [
        {"cache": cache, "arm": arm, "model": arm.rpartition("_")[2], "error": error, "head": head, "seed": 1}
        for cache, arms in errors.items()
        for arm, found in arms.items()
        for head, error in enumerate(found)
    ]
    fixed = {"experiment": "league", "n": 64, "d": 8, "rho": 1.0, "size": 16, "certificate": math.nan}
    return pd.DataFrame(lines).assign(**{**fixed, **columns})


# ratios -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", league.MODELS)
@pytest.mark.parametrize("families", [(), league.UNSEEN])
def test_known_ratios_are_recovered(rows, model, families):
    (part,) = advantage(model, families)(results_of(rows))
    assert part.estimate.value == pytest.approx(LEAGUE_RATIO[model])
    assert part.estimate.low < LEAGUE_RATIO[model] < part.estimate.high
    # equal_keys is exact for a tilted arm, which leaves the cell out for tilted and for free
    counted = 2 if families else 5 if model == "unweighted" else 4
    assert part.setting.startswith(f"{counted * 4} cells of ")
    assert part.estimate.caches == counted * 2


def test_the_rival_is_the_best_of_each_cell_by_the_mean_over_its_heads():
    """One published arm wins a cell each, though neither has the best head of both; the mean is geometric."""
    rows = table(
        {
            "sphere": {"minimax_tilted": [0.1, 0.1], "a_tilted": [0.01, 4.0], "b_tilted": [0.5, 0.5]},
            "product": {"minimax_tilted": [0.3, 0.3], "a_tilted": [2.0, 2.0], "b_tilted": [0.6, 0.6]},
        }
    )
    found = league.against_best(rows, "tilted").set_index("cache")
    assert found["rival"].to_dict() == {"sphere": "a_tilted", "product": "b_tilted"}
    assert np.exp(found["log_ratio"]).to_dict() == pytest.approx({"sphere": 0.5, "product": 0.5})


def test_free_coresets_compete_with_every_model_and_the_others_with_their_own():
    rows = table(
        {"sphere": {"minimax_free": [0.1], "c_free": [1.0], "a_tilted": [0.2], "minimax_tilted": [0.01], "b_x": [0.9]}}
    )
    assert league.against_best(rows, "free")["rival"].tolist() == ["a_tilted"]
    assert league.against_best(rows, "tilted")["rival"].tolist() == ["a_tilted"]
    assert league.against_best(rows, "unweighted").empty
    assert {place.arm for place in league.places(rows, "tilted")} == {"a_tilted", "minimax_tilted"}


def test_the_portfolio_has_its_own_line_beside_the_minimax_arm_and_both_are_no_rivals():
    rows = table(
        {
            "sphere": {"minimax_tilted": [0.1], "portfolio_tilted": [0.05], "a_tilted": [0.2]},
            "product": {"a_tilted": [1]},
        }
    )
    both = [league.against_best(rows, "tilted", ours) for ours in league.our_arms("tilted")]
    assert [np.exp(cells["log_ratio"]).tolist() for cells in both] == [pytest.approx([0.5]), pytest.approx([0.25])]
    assert [cells["rival"].tolist() for cells in both] == [["a_tilted"]] * 2
    (part,) = advantage("tilted", ours="portfolio_tilted")(results_of(rows))
    assert part.estimate.value == pytest.approx(0.25)
    assert league.our_arms("free") == ("minimax_free",)
    claims = {claim.id: claim for claim in CLAIMS}
    for model in ("unweighted", "tilted"):
        plain, portfolio = claims[f"league_{model}_unseen"], claims[f"league_portfolio_{model}_unseen"]
        assert portfolio.expected == plain.expected
        assert f"portfolio_{model}, on families unused in its development" in portfolio.statement


def test_ratios_by_d_and_rho_are_the_means_of_their_cells():
    parts = [
        table(
            {family: {"minimax_tilted": [0.1 * d * rho], "a_tilted": [1.0]} for family in ("sphere", "product")},
            d=d,
            rho=rho,
        )
        for d, rho in ((2, 1.0), (2, 3.0), (4, 1.0))
    ]
    section = league_section(results_of(pd.concat(parts)))
    assert "| d | ρ = 1 | ρ = 3 |" in section
    assert "| 2 | 0.2" in section
    assert "| 4 | 0.4" in section
    (two,) = [line for line in section.splitlines() if line.startswith("| 2 | 0.2")]
    assert "| 0.6" in two
    (four,) = [line for line in section.splitlines() if line.startswith("| 4 | 0.4")]
    assert four.endswith("| – |")


def test_variants_of_ours_are_no_rivals(rows):
    variant = rows.loc[rows["arm"] == "minimax_tilted"].assign(arm="minimax_tilted_random_queries")
    more = pd.concat([rows, variant.assign(error=variant["error"] / 3)])
    before, after = (league.against_best(r, "tilted")["log_ratio"].to_numpy() for r in (rows, more))
    np.testing.assert_allclose(after, before)


@pytest.mark.parametrize(("error", "counted"), [(1e-6, False), (0.0, False), (1.01e-6, True)])
@pytest.mark.parametrize("arm", ["minimax_tilted", "a_tilted"])
def test_cells_whose_best_error_is_tiny_are_left_out(arm, error, counted):
    errors = {cache: {"minimax_tilted": [0.1, 0.1], "a_tilted": [0.2, 0.2]} for cache in ("sphere", "product")}
    errors["product"][arm] = [error, 0.3]
    rows = table(errors)
    found = league.against_best(rows, "tilted")
    assert set(found["cache"]) == ({"sphere", "product"} if counted else {"sphere"})
    assert league.standings(rows, "tilted").left_out == (0 if counted else 1)
    assert np.isfinite(found["log_ratio"]).all()


# what has not run -------------------------------------------------------------------------------------------------


def test_claims_on_our_arms_are_not_run_without_them(rows):
    others = results_of(rows.loc[~rows["arm"].str.startswith("minimax")])
    mine = [claim for claim in CLAIMS if claim.experiment in (league.EXPERIMENT, league.MORE)]
    assert len(mine) == 15
    assert {decided(others)[claim.id].status for claim in mine} == {"not run"}
    assert "minimax" not in league_section(others)
    assert "No league yet" in league_block(results_of(rows.iloc[:0]))


def test_an_arm_counts_only_where_all_heads_ran():
    rows = table(
        {
            "sphere": {"minimax_tilted": [0.1, 0.1], "a_tilted": [0.2, 0.2], "b_tilted": [0.01]},
            "product": {"minimax_tilted": [0.1], "a_tilted": [0.2, 0.2], "b_tilted": [0.4, 0.4]},
        }
    )
    found = league.against_best(rows, "tilted")
    assert found[["cache", "rival"]].to_numpy().tolist() == [["sphere", "a_tilted"]]
    assert {place.arm: place.cells for place in league.places(rows, "tilted")} == {
        "minimax_tilted": 1,
        "a_tilted": 2,
        "b_tilted": 1,
    }


# places -----------------------------------------------------------------------------------------------------------


def test_places_have_ranks_wins_and_errors(rows):
    found = {place.arm: place for place in league.places(rows, "tilted")}
    assert list(found) == ["minimax_tilted", "greedy_tilted", "walk_tilted", "tilted_draws"]
    assert (found["minimax_tilted"].rank.value, found["minimax_tilted"].won) == (1.0, 16)
    # second at d = 32, third at d = 8, eight cells each
    greedy = found["greedy_tilted"]
    assert (greedy.rank.value, greedy.won, greedy.cells, greedy.compared) == (2.5, 0, 16, 16)
    assert 2 <= greedy.rank.low < 2.5 < greedy.rank.high <= 3.1
    assert greedy.error.value == pytest.approx(math.sqrt(1.2 * 0.8))
    assert found["tilted_draws"].error.value == pytest.approx(3)


def test_ties_share_their_rank_and_the_win():
    rows = table({"sphere": {"a_tilted": [0.2], "b_tilted": [0.2], "c_tilted": [0.3]}})
    assert [(p.arm, p.rank.value, p.won) for p in league.places(rows, "tilted")] == [
        ("a_tilted", 1.5, 1),
        ("b_tilted", 1.5, 1),
        ("c_tilted", 3.0, 0),
    ]


def test_section_and_block_name_every_arm_once_a_table(rows):
    section = league_section(results_of(rows))
    assert "**minimax_tilted (tilted)** | 1 | 16 |" in section
    assert "**minimax_free against the best other arm of each cell**" in section
    assert section.count("| 1 | **minimax_") == 3
    assert "some error is at most 1e-6: 4;" in section
    assert "walk_tilted 8" in section  # the rival in half of the tilted cells
    block = league_block(results_of(rows), first=1)
    assert block.count("\n| 1 | ") == 3
    assert "\n| 2 | " not in block


def test_the_table_has_certificates_where_the_ablation_computed_some():
    results = synthetic_results()
    table = results.table.replace({"experiment": {"certified": "ablation"}})
    section = league_section(Results("quick", table, []))
    (ours,) = [line for line in section.splitlines() if line.startswith("| 1 | **minimax_free (free)**")]
    assert float(ours.split(" | ")[-1].split()[0]) == pytest.approx(1.6 / 2.0, rel=0.02)
    draws = [line for line in section.splitlines() if "| tilted_draws (tilted)" in line]
    assert draws
    assert all(line.endswith("| – |") for line in draws)


def test_the_median_setting_is_that_of_the_ratios(rows):
    cells = league.against_best(rows, "free")
    halved = rows.assign(error=rows["error"] * np.where(rows["arm"] == "minimax_free", 0.5, 1.0))
    found, less = (float(median_setting(results_of(each))) for each in (rows, halved))
    assert found == pytest.approx(np.exp(cells["log_ratio"]).median(), rel=0.01)
    assert less == pytest.approx(found / 2, rel=0.01)


def test_certificates_are_compared_on_the_same_caches():
    """An arm that another experiment met too, on easier caches, does not look better for it."""
    cells = pd.DataFrame({"seed": np.arange(6), "cache": "sphere", "n": 64, "d": 4, "head": 0, "rho": 1.0, "size": 8})
    rows = pd.concat(
        [
            cells.assign(experiment=experiment, arm=arm, certificate=factor * easier, error=0.1)
            for experiment, easier, arms in (("ablation", 1.0, "ab"), ("certified", 0.1, "b"))
            for arm, factor in (("walk_tilted", 1.0), ("a", 0.7), ("b", 0.8 if experiment == "ablation" else 0.2))
            if arm in (*arms, "walk_tilted")
        ],
        ignore_index=True,
    )
    found = certified.over_reference(Results("quick", rows, []), ["a", "b", "c"], "walk_tilted")
    assert [one.value for one in found[:2]] == pytest.approx([0.7, 0.8])
    assert found[2].caches == 0


def test_block_shows_our_place_wherever_it_is(rows):
    worse = rows.assign(error=rows["error"] * np.where(rows["arm"] == "minimax_tilted", 100, 1))
    block = league_block(results_of(worse), first=2)
    assert "| 4 | **minimax_tilted (tilted)** |" in block
    assert "| 3 | walk_tilted" not in block


# intervals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [4, 8, 24])
def test_intervals_of_clustered_means_cover(k):
    """Three cells a cluster share most of their luck: intervals over cells would cover far less."""
    rng = np.random.default_rng(k)
    clusters = np.repeat(np.arange(k), 3)
    samples = rng.standard_normal((400, k)).repeat(3, axis=1) + 0.3 * rng.standard_normal((400, 3 * k))
    found = [clustered_mean(x, clusters) for x in samples]
    covered = np.mean([e.low <= 0 <= e.high for e in found])
    assert 0.9 <= covered <= 0.99
    cells = [clustered_mean(x, np.arange(3 * k)) for x in samples[:200]]
    assert np.mean([e.low <= 0 <= e.high for e in cells]) < 0.85


def test_clustered_mean_is_repeatable_and_weighs_cells_alike():
    values, clusters = np.array([1.0, 2.0, 3.0, 10.0]), np.array([5, 5, 7, 9])
    found = clustered_mean(values, clusters)
    assert found == clustered_mean(values[::-1].copy(), clusters[::-1].copy())
    assert (found.value, found.caches) == (4.0, 3)
    for level in np.geomspace(1e-16, 1e-12, 50):  # on another processor
        other = clustered_mean(values * (1 + level), clusters)
        assert (other.low, other.high) == pytest.approx((found.low, found.high), rel=1e-9)
    assert found.low < 1.5
    assert math.isnan(clustered_mean(values, np.array([1, 1, 2, 2])).low)
    with pytest.raises(ValueError, match="no NaN"):
        clustered_mean(np.array([1.0, np.nan]), np.array([0, 1]))


def test_families_are_the_harsher_clusters(rows):
    """Where families differ and their cells do not, resampling families gives the longer interval."""
    shift = {"sphere": 1.5, "clusters": 0.7, "product": 1.0, "low_rank": 1.0}
    ours = rows["arm"] == "minimax_tilted"
    uneven = rows.assign(error=rows["error"] * np.where(ours, rows["cache"].map(shift).fillna(1.0), 1))
    cells = league.against_best(uneven, "tilted")
    by_caches, by_families = league.mean_ratio(cells), league.mean_ratio(cells, league.FAMILIES)
    assert by_families.value == by_caches.value
    assert by_families.high / by_families.low > 1.2 * by_caches.high / by_caches.low


@pytest.mark.parametrize(
    ("value", "low", "high", "word"),
    [
        (0.6, 0.5, 0.69, "target met"),
        (0.69, 0.6, 0.79, "consistent"),
        (0.69, 0.6, 0.81, "inconclusive"),
        (0.72, 0.65, 0.79, "consistent"),
        (0.9, 0.81, 0.95, "target missed"),
    ],
)
def test_tolerance_is_point_seven_with_an_interval_below_point_eight(value, low, high, word):
    assert status(Measured("", Estimate(value, low, high, 24)), BANDS["league"], block.OWN, 1) == word


# the grid and the axes --------------------------------------------------------------------------------------------


def arms_of(experiment: str) -> list[str]:
    grid = OmegaConf.to_container(OmegaConf.load(CONF / "experiment" / f"{experiment}.yaml"))
    more = grid["at"]["full"].get("more", "")
    text = grid["hydra"]["sweeper"]["params"]["arm"].replace("${at.${tier}.more}", more)
    return [arm.strip() for arm in text.split(",")]


@pytest.mark.parametrize("experiment", ["league", "ablation"])
def test_every_arm_of_the_grid_is_in_the_table_and_listed_once(experiment):
    arms = arms_of(experiment)
    assert len(set(arms)) == len(arms)
    assert set(arms) <= set(ARMS)


def test_the_league_has_all_families_and_seeds_of_its_own():
    at = OmegaConf.load(CONF / "experiment" / "league.yaml")["at"]
    synthetic = set(CACHES) - {"model", "spread_norms", "biased_logits", "ragged_clusters"}  # younger than the league
    for tier in ("quick", "reduced", "full"):
        assert set(at[tier].cache.split(",")) == synthetic
    assert set(league.UNSEEN) <= synthetic
    assert (at.reduced.d, at.reduced.rho) == ("8,32,64", "1,2,3")
    more = OmegaConf.load(CONF / "experiment" / "league_unseen.yaml")["at"]
    assert set(at) == set(more)
    assert set(more.reduced.cache.split(",")) == set(league.UNSEEN)
    other = [path for path in (CONF / "experiment").glob("*.yaml") if path.stem != "league"]
    seeds = {str(tier.seed) for path in other for tier in OmegaConf.load(path)["at"].values() if "seed" in tier}
    assert not seeds & {str(tier.seed) for tier in at.values()}


@pytest.mark.parametrize(
    ("arm", "axis"),
    [
        ("walk_tilted", RULE),
        ("kernel_halving_tilted", RULE),
        ("halving_tilted", RECURSION),
        ("kernel_halving_tilted_compress_pp", RECURSION),
        ("kernel_halving_tilted_kernel_swaps", REFINEMENT),
        ("walk_tilted_refit", REFINEMENT),
        ("walk_tilted_scale_one", SCALE),
        ("minimax_tilted", OWN),
    ],
)
def test_the_table_says_which_axis_an_arm_changes(arm, axis):
    assert axis_of(arm) == axis
    assert axis in AXES


def test_refined_arms_are_no_rules():
    """The ablation's claim speaks of rules, recursions and scales: what refines a rule's choice is not its rival."""
    rows = synthetic_results().rows("ablation")
    walk = rows.loc[rows["arm"] == "walk_tilted"]
    better = [walk.assign(arm=a, error=walk["error"] / 9) for a in ("walk_tilted_refit", "minimax_tilted")]
    before, after = (against_best("walk_tilted")(results_of(r)) for r in (rows, pd.concat([rows, *better])))
    assert after == before
    scaled = pd.concat([rows, better[0].assign(arm="walk_tilted_scale_one")])
    assert all(part.estimate.value == pytest.approx(9) for part in against_best("walk_tilted")(results_of(scaled)))


def test_the_order_of_rows_does_not_matter(rows):
    shuffled = rows.sample(frac=1, random_state=0)
    for model in league.MODELS:
        a, b = (league.mean_ratio(league.against_best(part, model)) for part in (rows, shuffled))
        assert (b.value, b.low, b.high) == pytest.approx((a.value, a.low, a.high))
    assert [place.arm for place in league.places(shuffled, "free")] == [p.arm for p in league.places(rows, "free")]


# what a first-moment estimate allows ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [3, 6])
def test_the_annealed_floor_is_below_the_best_of_all_subsets(seed, size):
    features = np.random.default_rng(seed).standard_normal((12, 24))
    centred = features - features.mean(0)
    best = min(float(np.square(centred[list(s)].sum(0)).sum()) for s in combinations(range(12), size))
    floor = annealed_floor(centred @ centred.T, size)
    assert 0.1 * best < floor < best


def test_the_annealed_floor_of_one_normal_direction_is_known():
    """One eigenvalue s, H = log of the number of subsets: e / s = 1 + log(e / s) + 2 H, from the least of the bound."""
    x = np.repeat([1.0, -1.0], 10)
    floor, spread = annealed_floor(np.outer(x, x), 10), 20 * 10 * 10 / (20 * 19)
    assert floor / spread == pytest.approx(1 + math.log(floor / spread) + 2 * math.log(math.comb(20, 10)), rel=1e-6)
    assert annealed_floor(9 * np.outer(x, x), 10) == pytest.approx(9 * floor)
    with pytest.raises(ValueError, match="size must lie between"):
        annealed_floor(np.eye(4), 4)
