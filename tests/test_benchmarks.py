"""The benchmarks' own arithmetic against known answers, and a run of every part at a tiny size."""

import importlib.util
import json

import numpy as np
import pandas as pd
import pytest
import torch

from attention_coresets import CORESETS, Cache
from attention_coresets.coresets.arms import ARMS
from attention_coresets.coresets.walks.walk import walk_signs
from benchmarks import (
    adversary,
    arms,
    compress,
    constructions,
    goodpoints_peer,
    halving,
    kernel,
    limits,
    long,
    machine,
    memory,
    minimax,
    page,
    prompts,
    racing,
    real_heads,
    store,
    streaming,
    study_time,
    tables,
    thin,
    timing,
    walk,
)
from benchmarks import run as command
from benchmarks.exponents import Exponent, exponent, verdict
from benchmarks.numpy_walk import numpy_walk
from benchmarks.records import Part, Ratio, Target, missing, ratio, timed_row
from benchmarks.stated import LEFT_OUT, STATED

MEASURED = {
    "limits": limits,
    "walk": walk,
    "halving": halving,
    "thin": thin,
    "compress": compress,
    "adversary": adversary,
    "minimax": minimax,
}


@pytest.fixture
def no_memory_run(monkeypatch):
    """Every peak 1 MiB, without the process that measures it."""
    for part in (walk, halving, thin, compress, minimax, constructions):
        monkeypatch.setattr(part, "peaks", lambda wanted: [None if one is None else 2**20 for one in wanted])


@pytest.mark.parametrize("power", [0.0, 1.0, 2.5, 3.0])
def test_the_exponent_of_synthetic_costs(power):
    n = [1024 * 2**k for k in range(7)]
    found = exponent(n, [1e-9 * x**power for x in n])
    assert found.value == pytest.approx(power, abs=1e-9)
    assert found.error < 1e-9
    assert found.points == 4


def test_a_fixed_cost_at_small_sizes_is_left_out():
    n = [1024 * 2**k for k in range(8)]
    found = exponent(n, [max(1.0, (x / 16384) ** 2) for x in n])
    assert found.value == pytest.approx(2, abs=1e-9)


def test_the_standard_error_is_that_of_repeated_draws(rng):
    n = [2.0**k for k in range(12)]
    noise = 0.1
    found = [exponent(n, [x**2 * np.exp(noise * rng.standard_normal()) for x in n]) for _ in range(4000)]
    values = np.array([f.value for f in found])
    assert values.mean() == pytest.approx(2, abs=4 * values.std() / 4000**0.5)
    assert np.sqrt(np.mean([f.error**2 for f in found])) == pytest.approx(values.std(), rel=0.03)


def test_order_and_number_of_sizes():
    assert exponent([4, 1, 2], [16.0, 1.0, 4.0]).value == pytest.approx(2)
    assert exponent([1, 2], [1.0, 2.0]) is None


@pytest.mark.parametrize(
    ("found", "stated", "word"),
    [
        (Exponent(2.0, 0.01, 4), 2, "as stated"),
        (Exponent(2.2, 0.0, 4), 2, "as stated"),
        (Exponent(2.4, 0.01, 4), 2, "ABOVE"),
        (Exponent(2.4, 0.2, 4), 2, "as stated"),
        (Exponent(1.0, 0.01, 4), 2, "below"),
        (Exponent(9.0, 0.01, 4), None, "nothing stated"),
        (Exponent(9.0, 0.9, 4), 2, "too noisy"),
        (None, 2, "too few sizes"),
    ],
)
def test_verdicts_on_exponents(found, stated, word):
    assert verdict(found, stated) == word


def test_every_construction_states_its_cost_or_is_left_out():
    assert set(CORESETS) <= set(STATED) | set(LEFT_OUT)
    assert not set(STATED) & set(LEFT_OUT)
    assert {arm.name for arm in constructions.arms("full")} == set(CORESETS) - set(LEFT_OUT)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("n", "rank"), [(1, 1), (2, 2), (9, 3), (60, 60), (80, 5)])
def test_the_numpy_walk_takes_the_package_s_path(n, rank, exact, rng):
    features = rng.standard_normal((n, rank)) * rng.uniform(0.3, 2, (n, 1))
    gram, uniforms = features @ features.T, rng.random((6, n))
    rest = (n - 1) % 2 / max(1, n - 1)  # with the first token settled at 1, an integer sum of the parity of n
    x = np.full(n, rest if exact else 0.3)
    x[0] = 1.0
    for row in uniforms:
        arrays = [torch.from_numpy(a.copy())[None] for a in (gram, x, row)]
        expected = walk_signs(*arrays, 1e-2, exact)[0].numpy()
        np.testing.assert_array_equal(numpy_walk(gram, x, row, 1e-2, exact), expected)


def test_rounds_run_every_task_and_begin_elsewhere():
    order, made = [], []
    tasks = {
        name: timing.Task(lambda given: order.append(given), lambda name=name: made.append(name) or name)
        for name in "abc"
    }
    found = timing.interleaved(tasks, 0.0, least=3)
    assert order == made == list("abcbcacab")
    assert {name: len(spent) for name, spent in found.seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_preparation_is_not_timed(monkeypatch):
    clock = iter([10.0, 12.5])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    seconds, result = timing.once(timing.Task(lambda given: given + 1, lambda: 1))
    assert (seconds, result) == (2.5, 2)


def test_a_ratio_is_taken_round_by_round():
    found = ratio("x", [2.0, 30.0, 4.0], [1.0, 10.0, 1.0], factor=0.5, target=Target(1.5))
    assert (found.value, found.low, found.high, found.verdict) == (1.5, 1.0, 2.0, "pass")
    assert ratio("x", [4.0], [1.0], target=Target(1.5)).verdict == "miss"
    assert ratio("x", [4.0], [1.0], target=Target(1.5, at_most=False)).verdict == "pass"
    assert ratio("x", [4.0], [1.0]).verdict == ""
    assert (missing("x", Target(2), "why").verdict, missing("x", Target(2), "why").value) == ("not run", None)


def test_a_row_holds_the_median_and_the_rate():
    row = timed_row("task", "ours", [4.0, 1.0, 2.0], 7, operations=6.0, heads=3)
    assert (row.seconds, row.fastest, row.slowest, row.repeats, row.rate) == (2.0, 1.0, 4.0, 3, 3.0)
    assert (row.n, row.heads, row.m) == (7, 3, None)


@pytest.mark.skipif(not memory._reset(), reason="the system has no switch to reset the peak")
def test_the_peak_of_a_known_allocation():
    size = 2**26
    task = timing.Task(
        lambda kept: torch.zeros(size // 4, dtype=torch.float32).add_(1).sum(), lambda: torch.ones(2**24)
    )
    memory.peak(task)  # the first run also takes what the threads and the allocator keep
    assert memory.peak(task) == pytest.approx(size, rel=0.03)


@pytest.mark.skipif(not memory._reset(), reason="the system has no switch to reset the peak")
def test_peaks_are_measured_in_another_process_in_their_order():
    make = [memory.Specification("benchmarks.walk", "factor", {"n": n}, {"n": 64}) for n in (1024, 512)]
    large, absent, small = memory.peaks([make[0], None, make[1]])
    assert absent is None
    assert large * 1.02 >= 2 * 8 * 1024**2  # the factor and the inverse; a new process takes some MB more
    assert large <= 4 * 8 * 1024**2
    assert small < large / 2


@pytest.mark.skipif(not memory._reset(), reason="the system has no switch to reset the peak")
def test_a_failing_memory_run_says_why_and_the_next_one_works():
    with pytest.raises(RuntimeError, match=r"(?s)code 1: .*no_such"):
        memory.peaks([memory.Specification("benchmarks.walk", "no_such", {})])
    (found,) = memory.peaks([memory.Specification("benchmarks.walk", "factor", {"n": 1024}, {"n": 64})])
    assert 2 * 8 * 1024**2 <= found * 1.02 <= 4 * 8 * 1024**2


def test_a_compression_is_won_back_token_by_token():
    assert prompts.won_back(6.0, 0.25, 0.1) == pytest.approx(40.0, rel=1e-12)
    assert prompts.won_back(6.0, 0.1, 0.1) is None


def test_threads_are_given_and_taken_back():
    before = torch.get_num_threads()
    with timing.in_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    with pytest.raises(ValueError), timing.in_threads(before + 1):
        raise ValueError
    assert torch.get_num_threads() == before


def test_the_kernel_distance_by_its_definition(rng):
    x = kernel.points(50)[0].numpy()
    kept = np.sort(rng.choice(50, 20, replace=False))
    gram = np.array([[np.exp(-np.square(a - b).sum() / kernel.LENGTH) for b in x] for a in x])
    np.testing.assert_allclose(kernel.gram(50)[0].numpy(), gram, atol=1e-12)
    np.testing.assert_allclose(kernel.gaussian(x), gram, atol=1e-12)
    square = gram.mean() - 2 * gram[:, kept].mean() + gram[np.ix_(kept, kept)].mean()
    np.testing.assert_allclose(kernel.kernel_means(x, rows=16), gram.mean(1), rtol=1e-12)
    assert kernel.distance(x, kept) == pytest.approx(np.sqrt(square), rel=1e-9)
    assert kernel.distance(x, kept, gram.mean(1)) == pytest.approx(np.sqrt(square), rel=1e-9)
    assert kernel.distance(x, np.arange(50)) == pytest.approx(
        0, abs=1e-7
    )  # the root of what rounding leaves of a square


def test_the_plain_step_is_the_error_s_gradient():
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(30, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    cache, kept = Cache(keys, values), Cache(keys[::3], values[::3])
    query = torch.randn(5, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    outputs = [(query @ x.keys.mT).softmax(-1) @ x.values for x in (cache, kept)]
    (expected,) = torch.autograd.grad((outputs[0] - outputs[1]).square().sum() / 2, query)
    torch.testing.assert_close(adversary.plain_step(query.detach(), cache, kept), expected)


@pytest.mark.parametrize("name", MEASURED)
def test_each_part_at_a_tiny_size(name, no_memory_run):
    part = MEASURED[name].measure("smoke", "cpu")
    assert part.rows
    assert all((row.seconds or 0) > 0 or row.note for row in part.rows)
    assert all(one.verdict in ("pass", "miss", "not run") for one in part.ratios if one.target)
    assert len([one for one in part.ratios if one.target]) == {"walk": 2, "halving": 2, "adversary": 1}.get(name, 0)
    assert all(tables.aligned(one) for one in tables.tables_of(part))


def test_the_stream_s_part():
    part = streaming.measure("smoke", "cpu")
    assert [one.target for one in part.ratios] == ["≤ 300", "≤ 500", "≤ 2", ""]
    assert 0 < part.ratios[2].value < 20
    assert part.rows[0].memory < 500e6


def test_the_part_of_arms(monkeypatch):
    names = arms.arms()
    assert arms.WALK in names
    assert set(names) <= set(ARMS)
    monkeypatch.setattr(arms, "arms", lambda: ["walk_tilted", "uniform"])
    part = arms.measure("smoke", "cpu")
    assert [row.case for row in part.rows] == ["walk_tilted", "uniform"]
    same, faster = part.ratios
    assert same.value == 1.0
    assert faster.value > 1.0  # a draw beside a walk


def test_the_part_of_long_caches():
    part = long.measure("smoke", "cpu")
    assert [one.target for one in part.ratios if one.target] == ["≤ 180", "≤ 500", "≤ 0.7", "≤ 0.7"]
    assert {row.n for row in part.rows} == {512, 1024}
    assert all(row.error is not None and 0 < row.error < 2 for row in part.rows)


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs transformers")
def test_the_part_of_prompts():
    part = prompts.measure("smoke", "cpu")
    assert [one.target for one in part.ratios] == ["≤ 1", "≤ 1.05"] * 2
    # a token's keys and values are 2 * 16 floats, its place and log-weight 8 bytes: the budget is spent to the token
    assert [one.value for one in part.ratios[1::2]] == pytest.approx([1 + 8 / (2 * 16 * 4)] * 2, rel=0.01)
    assert [row.case.rpartition(" a token on ")[2] for row in part.rows[-3:]] == [
        "the whole cache",
        "1/4 of it",
        "1/8 of it",
    ]


def test_the_part_of_the_race():
    """Heads of all searches are the same, and a shortfall is that of the error found."""
    part = racing.measure("smoke", "cpu")
    made, real = part.rows[:3], part.rows[3:]
    assert [row.case for row in made] == list(racing.SEARCHES)
    assert [row.case for row in real] == [f"real heads, {name}" for name in racing.SEARCHES]
    assert [len({row.heads for row in rows}) for rows in (made, real)] == [1, 1]
    assert real[0].heads == 2 * len(real_heads.ARMS)
    assert [one.target for one in part.ratios if one.target] == ["≤ 0.005", "≤ 0.5"]
    one = racing.Found("", {racing.WHOLE: 0.9, racing.RACING: 1.1, racing.LARGE: 1.0}, {})
    assert one.short(racing.WHOLE) == pytest.approx(0.1)
    assert one.short(racing.RACING) == pytest.approx(-0.1)


def test_without_goodpoints_rows_say_how_to_install_it(monkeypatch, no_memory_run):
    monkeypatch.setattr(goodpoints_peer, "find_spec", lambda name: None)
    for part in (one.measure("smoke", "cpu") for one in (halving, thin, compress)):
        peers = [row for row in part.rows if row.who == "peer"]
        assert peers
        assert all("requirements-benchmarks.txt" in row.note and row.seconds is None for row in peers)
        assert all(one.verdict == "not run" for one in part.ratios)


def test_halvings_equal_goodpoints_where_it_is_installed(no_memory_run):
    if goodpoints_peer.absent():
        pytest.skip("goodpoints 0.6.3 is not installed")
    assert halving.measure("smoke", "cpu").notes[-1].endswith("3 of 3 problems")


def test_a_sweep_stops_where_the_next_size_would_take_too_long():
    arm = constructions.Arm("gram_schmidt_walk", "gram_schmidt_walk", {})
    setting = {"n": 8192, "m": 256, "d": 16}
    seconds = {1024: [0.1], 2048: [0.9], 4096: [7.0]}
    assert "8192 left out, some 56 s" in constructions._refusal(arm, "n", setting, seconds, 50.0)
    assert constructions._refusal(arm, "n", setting, seconds, 60.0) == ""
    assert constructions._refusal(arm, "n", setting, {4096: [7.0]}, 1.0) == ""
    assert "memory" in constructions._refusal(arm, "n", setting | {"n": 2**22}, seconds, 1e9)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A smoke run of two parts by the command, with its page."""
    folder = tmp_path_factory.mktemp("benchmarks")
    text = page.PAGE.read_text()
    (folder / "page.md").write_text(text)
    patch = pytest.MonkeyPatch()
    patch.setattr(constructions, "CORESETS", {name: CORESETS[name] for name in ("uniform", "gram_schmidt_walk")})
    patch.setattr(constructions, "peaks", lambda wanted: [2**22 * one.arguments["n"] for one in wanted])
    arguments = ["--tier", "smoke", "--part", "limits", "--part", "constructions"]
    where = ["--results", str(folder), "--figures", str(folder), "--page", str(folder / "page.md")]
    assert command.main([*arguments, *where]) == 0
    patch.undo()
    return folder


def test_the_command_writes_results_tables_and_figures(written):
    (path,) = written.glob("*.smoke.json")
    measured = store.load(path)
    assert set(measured.parts) == {"limits", "constructions"}
    assert path.name == f"{machine.slug(measured.machine)}.smoke.json"
    fits = {(one["construction"], one["quantity"]): one for one in measured.parts["constructions"].fits}
    assert fits["uniform", "memory"]["exponent"] == pytest.approx(1)
    assert fits["gram_schmidt_walk", "memory"]["stated"] == 2
    assert any(row.error for row in measured.parts["constructions"].rows)
    assert "| gram_schmidt_walk |" in path.with_suffix(".md").read_text()
    assert sorted(p.suffix for p in written.glob("*-constructions.*")) == [".pdf", ".png"]
    how = measured.parts["limits"].provenance
    assert how["threads"] == torch.get_num_threads()
    assert {"revision", "date", "torch", "blas"} <= set(how)


def test_a_part_measured_again_replaces_itself_alone(written):
    (path,) = written.glob("*.smoke.json")
    before = store.load(path)
    again = Part(ratios=[Ratio("new", 1.0)], provenance=before.parts["limits"].provenance)
    store.save(written, before._replace(parts={"limits": again}))
    after = store.load(path)
    assert [one.name for one in after.parts["limits"].ratios] == ["new"]
    assert after.parts["constructions"].fits == before.parts["constructions"].fits


def test_a_damaged_result_is_named(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"machine": {}}))
    with pytest.raises(ValueError, match=r"x\.json is no benchmark result"):
        store.load(tmp_path / "x.json")


def test_full_results_are_preferred_and_smoke_ones_never_shown(written, tmp_path):
    (path,) = written.glob("*.smoke.json")
    measured = store.load(path)
    for tier in ("smoke", "quick"):
        store.save(tmp_path, measured._replace(tier=tier))
    assert [one.tier for one in store.load_all(tmp_path)] == ["quick"]
    store.save(tmp_path, measured._replace(tier="full"))
    assert [one.tier for one in store.load_all(tmp_path)] == ["full"]
    text = page.filled(page.PAGE.read_text(), store.load_all(tmp_path))
    assert store.words(measured.machine) in text
    assert "| gram_schmidt_walk |" in text


def test_the_page_holds_what_the_results_give():
    text = page.PAGE.read_text()
    assert page.filled(text, store.load_all(store.RESULTS)) == text, "run `python benchmarks/run.py`"


@pytest.mark.parametrize(("seconds", "warned"), [(0.3, True), (0.1, False)])
def test_others_that_keep_the_machine_busy_are_told(seconds, warned, monkeypatch):
    """Of two cores for one second, others took 0.3 or 0.1 s: more or less than a tenth."""
    taken, now = iter([5.0, 5.0 + seconds]), iter([10.0, 11.0])
    monkeypatch.setattr(machine, "_others_seconds", lambda: next(taken))
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
    warning = machine.Others().warning()
    assert (warning is not None) == warned
    assert warning is None or warning.startswith("other work kept 0.3 of 2 cores busy")


def test_the_machine_is_named_by_its_processor():
    described = {"processor": "Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz", "cores": 2, "gpu": None}
    assert machine.slug(described) == "intel-xeon-gold-6130-cpu-2-10ghz-2-cores"
    assert set(machine.machine()) == {"processor", "cores", "memory_gib", "gpu"}


def test_the_time_of_a_study_is_compared_on_what_both_tables_have():
    def rows(cells: dict[str, float], search: str) -> pd.DataFrame:
        """Two sizes a cell, the first of them twice: experiments share it."""
        seconds = [(cell, size, spent) for cell, spent in cells.items() for size in (8, 8, 16)]
        table = pd.DataFrame(seconds, columns=["cell", "size", "seconds_construct"])
        table = table.assign(arm=table["cell"], cell=table["cell"] + search, cache="sphere", cache_params="", rho=1.0)
        return table.assign(experiment="league", seed=0, head=0, seconds_adversary=30.0)

    before = rows({"a": 60.0, "b": 120.0, "gone": 1.0}, "found by one search")
    found = study_time.compared(before, rows({"a": 30.0, "b": 0.0, "new": 1.0}, "by another"))
    assert found.to_dict("records") == [{"experiment": "league", "coresets": 4, "before": 8.0, "now": 3.0}]
