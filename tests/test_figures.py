"""Figures: the series, scales and labels they hold, and that nothing but results is needed to draw them."""

import json
import math
import re
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

from attention_coresets.analysis.figures.looks import look
from attention_coresets.analysis.figures.sizes import best_epsilon, sizes_at
from attention_coresets.analysis.figures.style import End, label_ends, new_figure, save, style
from attention_coresets.analysis.parts.results import Results, ResultsError, load
from attention_coresets.analysis.parts.topic import HEADS_FILE
from attention_coresets.analysis.report.gallery import FIGURES, draw
from attention_coresets.analysis.stats.crossings import crossings
from attention_coresets.analysis.stats.sizes import size_table
from attention_coresets.analysis.topics.contents import TOPICS
from attention_coresets.analysis.topics.facts.figures import title
from attention_coresets.analysis.topics.hard_instances.antipodal import EPSILONS, antipodal_floor
from attention_coresets.coresets.arms import ARMS
from command_line import script
from synthetic_results import SIZES, write_results

figures_script = script("figures")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return load(folder)


def texts(figure) -> str:
    labels = [ax.xaxis.label.get_text() + "\n" + ax.get_title(loc="left") for ax in figure.axes]
    return "\n".join(labels + [text.get_text() for ax in figure.axes for text in ax.texts])


def legend(figure) -> set[str]:
    found = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    return {t.get_text() for one in found for t in one.get_texts()}


# name -> panels, log axes of a panel, arms in the legend, text that must be somewhere
EXPECTED = {
    "headline": (2, "", set(), "fitted together"),
    "error_vs_size": (
        1,
        "xy",
        {"uniform", "walk_tilted", "walk_unweighted"},
        r"γ = [01]\.\d\d \[[01]\.\d\d, 1\.\d\d\]",
    ),
    "d_rate": (1, "xy", {"uniform", "walk_tilted", "walk_unweighted"}, r"α = 0\.\d\d \["),
    "rho_rate": (4, "y", {"uniform", "walk_tilted", "walk_unweighted"}, r"β = [01]\.\d\d \["),
    "constant": (6, "x", {"uniform", "walk_tilted", "walk_unweighted"}, "limit set for the tilted walk"),
    "upper_bound": (2, "xy", set(), "ρ = 3"),
    "n_independence": (1, "xy", {"uniform", "walk_tilted"}, r"ν = -?0\.\d\d \["),
    "lower_bound": (6, "x", set(), "below the floor"),
    "lower_bound_random": (3, "x", set(), "in units of"),
    "controls": (4, "xy", {"uniform", "walk_tilted"}, "equal keys, d = 8, ρ = 1, 2, 3"),
    "antipodal": (3, "y", {"walk_tilted", "walk_unweighted"}, "error ε = 0.1"),
    "hardness": (4, "", set(), "n, of which n/2 are kept"),
    "ratios": (2, "xy", set(), "r = d/4"),
    "sandwich": (2, "", set(), "floor for equal cluster weights"),
    "ceilings": (2, "y", set(), "left to right ρ = 1, 2"),
    "ablation": (2, "x", set(), r"that of the\nGram–Schmidt walk \(tilted\)"),
    "league": (1, "x", set(), r"best in, of \d+ settings"),
    "league_map": (5, "", set(), r"ours: minimax swaps \(tilted\): 0\.5 in the mean"),
    "real_errors": (6, "xy", {"h2o", "walk_tilted", "sinks_uniform", "query_exchange"}, "no sink: 8 heads"),
    "real_geometry": (6, "", set(), "log T of each head, text: code"),
    "real_sizes": (2, "", set(), "R² of log error"),
    "real_language": (3, "", set(), "facts found"),
    "real_tasks": (2, "", set(), "the full cache's"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_holds_its_panels_scales_arms_and_slopes(name, results):
    panels, logs, arms, text = EXPECTED[name]
    figure = draw(name, results)
    axes = [ax for ax in figure.axes if ax.get_visible()]
    assert len(axes) == panels
    assert all(ax.get_xscale() == "log" for ax in axes if "x" in logs)
    assert all(ax.get_yscale() == "log" for ax in axes if "y" in logs)
    assert {look(arm).label for arm in arms} <= legend(figure)
    assert re.search(text, texts(figure))
    assert len(figure.get_suptitle().split()) >= 8
    unlisted = set(results.table["arm"]) - set(ARMS)
    lines = {label.get_text() for ax in axes for label in ax.get_yticklabels()} - unlisted
    words = "\n".join([figure.get_suptitle(), texts(figure), *legend(figure), *lines])
    assert not re.search(r"[a-z]_[a-z]", words)  # no label of an arm or a family


@pytest.mark.parametrize(
    ("name", "letter", "symbol"),
    [
        ("error_vs_size", "γ", "gamma"),
        ("d_rate", "α", "alpha"),
        ("rho_rate", "β", "beta"),
        ("n_independence", "ν", "nu"),
    ],
)
def test_slopes_on_the_lines_are_the_fits(name, letter, symbol, results):
    experiment = FIGURES[name][0]
    fitted = [record["coefficients"][symbol] for record in results.laws(experiment) if record["status"] == "fitted"]
    words = texts(draw(name, results))
    assert len(fitted) >= 2
    for found in fitted:
        assert f"{letter} = {found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]" in words


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_without_fits_and_heads(name, results):
    if FIGURES[name][0] == HEADS_FILE:
        pytest.skip("of the heads alone")
    draw(name, Results(results.tier, results.table, [], None))


def test_the_headline_s_line_is_the_floor(results):
    """At equal cluster weights and m = n/2: A sqrt(d) with the sharpened a, x = sqrt(d) (e^rho - 1) / floor. It is as
    wide as the instances of a size differ."""
    band = draw("headline", results).axes[0].collections[0].get_paths()[0].vertices
    expected = {}
    for at in results.rows("lower_bound_exponents")[["cache_params", "rho"]].drop_duplicates().itertuples():
        params = json.loads(at.cache_params)
        d, r = params["d"], params["clusters"]
        a = math.exp(at.rho * math.sqrt(r / (r - 1))) - 1
        floor = a / (r * d + d * a) * math.sqrt(d)
        expected.setdefault(r * d / 2, []).append(math.sqrt(d) * math.expm1(at.rho) / floor)
    for size, rates in expected.items():
        drawn = [x for x, y in band if y == size]
        assert min(drawn) == pytest.approx(min(rates))
        assert max(drawn) == pytest.approx(max(rates))


def test_sandwich_shows_the_best_arm_over_the_floor_for_any_weights(results):
    """1.3 times it by construction of these rows; a line for each share."""
    ax = draw("sandwich", results).axes[1]
    assert len(dots(ax)) == len(ax.get_yticklabels()) == 2
    assert all(1.3 <= x <= 1.33 for line in dots(ax) for x in line.get_xdata())


def test_league_shows_errors_over_the_tilted_walks(results):
    ax = draw("league", results).axes[0]
    names = [label.get_text() for label in ax.get_yticklabels()]
    at = {float(line.get_ydata()[0]): float(line.get_xdata()[0]) for line in ax.lines if len(line.get_xdata()) == 1}
    errors = [at[y] for y in range(len(names))]
    assert errors == sorted(errors)
    rows = results.rows("league")
    rows = rows.loc[rows["cache"] != "equal_keys"]  # some coreset is as good as exact there
    logs = np.log(rows["error"]).groupby(rows["arm"]).mean()
    for name, error in zip(names, errors, strict=True):
        (arm,) = (arm for arm in logs.index if look(arm).label == name)
        assert error == pytest.approx(np.exp(logs[arm] - logs["walk_tilted"]), rel=1e-9)


def antipodal_caches(n: int, rho: float) -> pd.DataFrame:
    """Rows of one unweighted subset a size, with the least error that any subset of the size has."""
    plus = round(n / (1 + math.exp(2 * rho)))
    t = math.tanh(rho + math.log(plus / (n - plus)) / 2)
    rows = []
    for size in (4, 8, 16, 32, 64, 128, 256, 512):
        kept = range(1, min(size, plus + 1))
        errors = [abs(math.tanh(rho + math.log(k / (size - k)) / 2) - t) for k in kept]
        rows.append({"size": size, "rho": rho, "error": min(errors)})
    return pd.DataFrame(rows)


def test_no_mark_of_an_unweighted_arm_lies_below_its_floor():
    """The best subsets there are, at sizes a factor 2 apart, where the number of keys at +u is rounded a lot."""
    n, d = 1024, 8
    rows = pd.concat([antipodal_caches(n, rho) for rho in (1.0, 1.5, 2.0, 2.5, 3.0)])
    rows = rows.assign(experiment="lower_bound_antipodal", arm="walk_unweighted", n=n, d=d, sigma=0.9)
    rows = rows.assign(cache_params='{"values": "keys"}')
    for ax, epsilon in zip(draw("antipodal", Results("quick", rows, [])).axes, EPSILONS, strict=True):
        x, y = ax.containers[0][0].get_data()
        assert len(x) >= 3
        assert all(m >= antipodal_floor(n, rho, epsilon) for rho, m in zip(x, y, strict=True))


def test_arms_are_drawn_at_an_epsilon_of_their_own_fit(results):
    """The label says how many epsilons the fit rests on; there is none, and no guide, where sizes are censored."""
    words = texts(draw("n_independence", results))
    for record in results.laws("n_independence"):
        epsilons = "|".join(re.escape(f"{epsilon:.2g}") for epsilon in record["epsilons"])
        assert re.search(rf"ε = ({epsilons}); fit over {len(record['epsilons'])} ε(\n|$)", words)
    rows = results.rows("n_independence")
    ax = draw("n_independence", Results("quick", rows.assign(error=1.9), [])).axes[0]
    assert not ax.texts
    assert "independent of n" not in {line.get_label() for line in ax.lines}


def dots(ax) -> list:
    return [line for line in ax.lines if line.get_marker() == "." and len(line.get_xdata())]


def test_language_shows_every_segment_and_the_means(results):
    rows = results.rows("real_language")
    ax = draw("real_language", Results("quick", rows, [])).axes[1]
    assert {len(line.get_xdata()) for line in dots(ax)} == {4}  # segments
    assert len(dots(ax)) == rows["arm"].nunique() * rows["size"].nunique()
    kl = rows.loc[(rows["arm"] == "h2o") & (rows["size"] == 256), "kl"].to_numpy()
    assert any(np.allclose(np.sort(line.get_xdata()), np.sort(kl)) for line in dots(ax))
    assert any(
        np.isclose(line.get_xdata(), kl.mean(), rtol=1e-9).any() for line in ax.lines if line.get_marker() == "s"
    )


def test_less_loss_than_the_full_caches_has_its_place(results):
    rows = results.rows("real_language").assign(loss=2.49)
    assert draw("real_language", Results("quick", rows, [])).axes[0].get_xlim()[0] < -0.01


def test_facts_are_shares_of_what_the_full_cache_finds(results):
    rows = results.rows("real_tasks")
    ax = draw("real_tasks", results).axes[0]
    ours = rows.loc[(rows["arm"] == "replay_fit") & (rows["size"] == 512)]
    share = float((ours["needle_found"] / ours["needle_found_full"]).mean())
    marks = [x for line in ax.lines if line.get_marker() == "o" for x in line.get_xdata()]
    assert any(x == pytest.approx(share, rel=1e-9) for x in marks)
    assert title("snapkv_layer") == "SnapKV, a budget a layer"


def test_error_curves_are_the_medians(results):
    ax = draw("error_vs_size", results).axes[0]
    rows = results.rows("epsilon_rate")
    for arm in ("uniform", "walk_tilted"):
        line = next(line for line in ax.lines if line.get_label() == look(arm).label)
        medians = rows.loc[rows["arm"] == arm].groupby("size")["error"].median()
        np.testing.assert_allclose(line.get_ydata(), medians.to_numpy())


def test_censored_sizes_are_open_triangles(results):
    """Uniform subsets never reach the epsilon of the sphere's panel at rho = 3."""
    figure = draw("rho_rate", results)
    ax = next(ax for ax in figure.axes if ax.get_title(loc="left").startswith("sphere"))
    triangles = [line for line in ax.lines if line.get_marker() == "^" and len(line.get_xdata())]
    assert triangles
    assert all(line.get_markerfacecolor() == "none" for line in triangles)
    assert 3 in {round(x) for line in triangles for x in line.get_xdata()}
    assert {float(SIZES[-1])} == {y for line in triangles for y in line.get_ydata()}


def test_models_are_set_apart_on_cap_outliers(results):
    """At rho = 2 the unweighted walk of the synthetic law needs e^{2 (1.6 - 0.75)} times the tilted walk's size."""
    ax = next(ax for ax in draw("rho_rate", results).axes if ax.get_title(loc="left").startswith("cap outliers"))
    at_two = {}
    for arm in ("walk_tilted", "walk_unweighted"):
        bars = next(c for c in ax.containers if c.get_label() == look(arm).label)
        at_two[arm] = next(size for rho, size in zip(*bars[0].get_data(), strict=True) if abs(rho - 2) < 0.2)
    assert at_two["walk_unweighted"] / at_two["walk_tilted"] == pytest.approx(np.exp(2 * 0.85), rel=0.025)


def test_crossings_lie_on_the_curve():
    errors = pd.DataFrame({"arm": "a", "size": [16, 32, 64, 128], "error": [1 / 16, 1 / 32, 1 / 64, 1 / 128]})
    sizes = size_table(errors, [1 / 50, 1 / 100, 1 / 8, 1 / 200], ["arm"], max_size=None)
    found = crossings(sizes, errors, ["arm"]).set_index("epsilon")["middle"]
    assert found[1 / 50] == pytest.approx(50)
    assert found[1 / 100] == pytest.approx(100)
    assert found[1 / 8] == 16  # already the smallest size will do: its upper end
    assert found[1 / 200] == 128  # not reached: its lower end


def test_best_epsilon_is_resolved_for_as_many_as_possible(results):
    rows = results.rows("n_independence")
    rows = rows.loc[rows["arm"] == "walk_tilted"]
    assert set(sizes_at(rows, ["n"], [best_epsilon(rows, ["n"])])["status"]) == {"interval"}


def test_labels_that_collide_are_pushed_apart():
    ax = new_figure(4.0, 3.0).subplots()
    ax.set(yscale="log", ylim=(1e-3, 1))
    label_ends(
        ax,
        [End(1.0, 0.1, "a", "k"), End(1.0, 0.101, "b", "k"), End(1.0, 0.9, "c", "k"), End(1.0, 0.95, "", "k")],
        gap=0.1,
    )
    heights = sorted(text.xy[1] for text in ax.texts)
    assert len(heights) == 3
    assert np.diff(heights).min() >= 0.1 - 1e-9
    assert heights[-1] <= 0.98 + 1e-9


@pytest.mark.parametrize("name", ["error_vs_size", "d_rate", "rho_rate", "n_independence"])
def test_no_label_of_a_line_covers_another(results, name):
    with style():
        figure = draw(name, results)
        figure.draw_without_rendering()
        for ax in figure.axes:
            boxes = [text.get_window_extent() for text in ax.texts if text.get_text().strip()]
            assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]


def test_saved_pictures_are_small_reproducible_and_embed_their_fonts(tmp_path, results):
    with style():
        first = save(draw("antipodal", results), tmp_path / "a", "x")
        second = save(draw("antipodal", results), tmp_path / "b", "x")
    assert first[0].stat().st_size < 150_000
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert b"/CIDFontType2" in first[1].read_bytes()  # a TrueType font (type 42), not outlines (type 3)
    assert b"/Type3" not in first[1].read_bytes()
    assert matplotlib.rcParams["pdf.fonttype"] != 42  # the style stays inside its context


def test_script_skips_what_was_not_run(tmp_path, capsys, folder):
    table = pd.read_parquet(folder / "table.parquet")
    (tmp_path / "quick").mkdir()
    table.loc[table["experiment"] == "lower_bound_orthonormal"].to_parquet(tmp_path / "quick" / "table.parquet")
    arguments = ["--results", str(tmp_path), "--figures", str(tmp_path / "f"), "--tier", "quick"]
    assert figures_script.main(arguments) == 0
    out = capsys.readouterr().out
    assert "d_rate: skipped, tier quick has no rows of experiment=d_rate" in out
    drawn = {path.stem for path in (tmp_path / "f" / "quick").iterdir()}
    assert drawn == {name for name, (experiment, _) in FIGURES.items() if experiment == "lower_bound_orthonormal"}


def damage(folder: Path, kind: str) -> None:
    path = folder / "table.parquet"
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif kind == "columns":
        pd.read_parquet(path).drop(columns=["sigma"]).to_parquet(path)
    else:
        (folder / "fits.json").write_text("{")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "table.parquet is missing: run `python scripts/sweep.py"),
        ("truncated", "table.parquet is damaged"),
        ("columns", "lacks the columns sigma"),
        ("fits", "fits.json is damaged"),
    ],
)
def test_bad_results_are_one_clear_line(tmp_path, capsys, folder, kind, message):
    copy = tmp_path / "quick"
    copy.mkdir()
    for name in ("table.parquet", "fits.json"):
        (copy / name).write_bytes((folder / name).read_bytes())
    damage(copy, kind)
    assert figures_script.main(["--results", str(tmp_path), "--figures", str(tmp_path / "f"), "--tier", "quick"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "f").exists()


def test_fits_of_another_table_are_refused(tmp_path, folder):
    copy = tmp_path / "quick"
    copy.mkdir()
    pd.read_parquet(folder / "table.parquet").head(500).to_parquet(copy / "table.parquet")
    (copy / "fits.json").write_bytes((folder / "fits.json").read_bytes())
    with pytest.raises(ResultsError, match="another table"):
        load(copy)


def test_every_figure_has_its_picture_and_a_caption_on_the_page():
    page = (ROOT / "docs" / "figures.md").read_text()
    parts = re.findall(r"^### (\w+)\n!\[\1\]\(\.\./(.*?)\)\n\n(.*?)(?:\n\n|\Z)", page, re.MULTILINE | re.DOTALL)
    # other tests take figures out of FIGURES and put them back, in another order
    assert [name for name, _, _ in parts] == [name for topic in TOPICS for name in topic.figures]
    for name, picture, caption in parts:
        assert picture == f"figures/reduced/{name}.png"
        assert (ROOT / picture).exists()
        assert (ROOT / picture).with_suffix(".pdf").exists()
        sentences = [sentence.split() for sentence in re.split(r"[.?](?:\s|$)", caption) if sentence]
        assert len(sentences) >= 2, name
        assert max(map(len, sentences)) <= 30, name  # words
        assert sum(map(len, sentences)) <= 80, name
