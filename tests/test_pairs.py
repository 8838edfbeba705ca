"""The pair walk: greedy signs, the self-balancing walk, the coin, against NumPy loops; pivotal marginals."""

import itertools
import math

import numpy as np
import pytest
import torch

from attention_coresets import make_cache
from attention_coresets.compiled import backend
from attention_coresets.coresets.balancing.greedy import _GreedySign
from attention_coresets.coresets.balancing.kernel_halving import _KernelHalving, kernel_halving_signs
from attention_coresets.coresets.balancing.paired_coin import _Coin
from attention_coresets.coresets.balancing.self_balancing_walk import _SelfBalancing
from attention_coresets.coresets.kernel.law import balancing_features, kernel_panel, law
from attention_coresets.coresets.walks import pairs
from attention_coresets.coresets.walks.pairs import Rule, pair_signs


def gram_of(rng, n, d=3):
    x = rng.standard_normal((n, d))
    return np.exp(x @ x.T / 2)


def run(gram, x, uniforms, rule: Rule):
    """pair_signs of one head as +-1 floats."""
    arrays = [torch.from_numpy(np.asarray(a, dtype=float))[None] for a in (gram, x, uniforms)]
    return 2.0 * pair_signs(*arrays, rule)[0].double().numpy() - 1


def loop(gram, x, uniforms, chance):
    """The pair walk of the module's text, one pair at a time; ``chance(inner, norm2, fair, half)`` is the rule."""
    x, start, used = np.array(x, dtype=float), np.array(x, dtype=float), 0
    while (alive := np.flatnonzero(np.abs(x) < 1 - 1e-10)).size > 1:
        for i, j in zip(alive[0::2], alive[1::2], strict=False):
            up, down = min(1 - x[i], 1 + x[j]), min(1 + x[i], 1 - x[j])
            inner = (gram[i] - gram[j]) @ (x - start)
            norm2 = gram[i, i] - 2 * gram[i, j] + gram[j, j]
            goes_up = uniforms[used] < chance(inner, norm2, down / (up + down), (up + down) / 2)
            step = up if goes_up else -down
            x[i], x[j], used = x[i] + step, x[j] - step, used + 1
    return np.sign(x)


def fractional(rng, n):
    """x in (-1, 1)^n with a sum of the parity of n."""
    x = rng.uniform(-0.6, 0.6, n)
    return x + (np.round((x.sum() - n) / 2) * 2 + n - x.sum()) / n


STARTS = ("halves", "fractions", "capped")


def start(kind, rng, n):
    if kind == "halves":
        return np.zeros(n)
    x = fractional(rng, n)
    return np.concatenate([[1.0, -1.0], fractional(rng, n - 3), [1.0]]) if kind == "capped" else x


@pytest.mark.parametrize("kind", STARTS)
@pytest.mark.parametrize("n", [4, 30, 63])
def test_greedy_takes_the_end_of_less_discrepancy(kind, n, rng):
    if kind == "halves":
        n += n % 2
    gram, x, uniforms = gram_of(rng, n), start(kind, rng, n), rng.random(n)

    def nearer(inner, norm2, fair, half):
        up, down = 2 * half * (1 - fair), 2 * half * fair  # |D + s f|^2 = |D|^2 + 2 s <f, D> + s^2 |f|^2
        gain = (2 * up * inner + up**2 * norm2) - (-2 * down * inner + down**2 * norm2)
        return fair if abs(gain) < 1e-12 else float(gain < 0)

    np.testing.assert_array_equal(run(gram, x, uniforms, _GreedySign()), loop(gram, x, uniforms, nearer))


def test_greedy_from_halves_in_five_lines(rng):
    gram, uniforms = gram_of(rng, 40), rng.random(40)
    signs = np.zeros(40)
    for t in range(0, 40, 2):
        inner = (gram[t] - gram[t + 1]) @ signs
        signs[t] = -np.sign(inner) if t else (1 if uniforms[0] < 0.5 else -1)
        signs[t + 1] = -signs[t]
    np.testing.assert_array_equal(run(gram, np.zeros(40), uniforms, _GreedySign()), signs)


@pytest.mark.parametrize("kind", STARTS)
@pytest.mark.parametrize("c", [0.3, 5.0, 1000.0])
def test_self_balancing_follows_its_probability(kind, c, rng):
    n = 40
    gram, x, uniforms = gram_of(rng, n), start(kind, rng, n), rng.random(n)
    alive, longest = np.flatnonzero(np.abs(x) < 1), 0.0  # the first round's longest pair sets the scale
    for i, j in zip(alive[::2], alive[1::2], strict=False):
        half = (min(1 - x[i], 1 + x[j]) + min(1 + x[i], 1 - x[j])) / 2
        longest = max(longest, half**2 * (gram[i, i] - 2 * gram[i, j] + gram[j, j]))

    def chance(inner, norm2, fair, half):
        return np.clip(fair - half * inner / (2 * c * longest), 0, 1)

    np.testing.assert_array_equal(run(gram, x, uniforms, _SelfBalancing(c)), loop(gram, x, uniforms, chance))


def test_the_theoretical_constant_is_nearly_a_coin(rng):
    """The largest tilt of a coin in a walk of 200 tokens at c = 30 log(n / 0.01) stays below one in a hundred."""
    gram, slopes = gram_of(rng, 200), []

    class Recorder(_SelfBalancing):
        compiled = property(lambda self: None, lambda self, value: None)

        def start(self, norm2, fair):
            slopes.append(super().start(norm2, fair)[1])
            return torch.zeros_like(fair), slopes[-1]

    ends = run(gram, np.zeros(200), rng.random(200), Recorder(30 * math.log(200 / 0.01)))
    alpha = [(gram[i] - gram[i + 1])[:i] @ ends[:i] for i in range(0, 200, 2)]
    assert 0 < np.abs(slopes[0][0].numpy() * alpha).max() < 0.01


def test_the_coin_keeps_one_of_each_pair(rng):
    uniforms = rng.random((500, 20))
    kept = pair_signs(None, torch.zeros(500, 20).double(), torch.from_numpy(uniforms), _Coin()).numpy()
    np.testing.assert_array_equal(kept[:, 0::2], uniforms[:, :10] < 0.5)
    np.testing.assert_array_equal(kept[:, 1::2], ~kept[:, 0::2])


@pytest.mark.parametrize("n", [3, 5, 8])
def test_pivotal_marginals_are_exact(n, rng):
    """Every path of the coin with its probability: the mean is the start, the sum never moves."""
    x, mean, total = fractional(rng, n), np.zeros(n), 0.0
    for choices in itertools.product((True, False), repeat=n - 1):
        taken, probability = iter(choices), []

        def chance(inner, norm2, fair, half, taken=taken, probability=probability):
            up = next(taken)
            probability.append(fair if up else 1 - fair)
            return float(up)

        end = loop(np.zeros((n, n)), x, np.full(n, 0.5), chance)
        unused = 2 ** len(list(taken))
        weight = np.prod(probability) / unused
        mean, total = mean + weight * end, total + weight
        assert end.sum() == pytest.approx(x.sum(), abs=1e-9)
    assert total == pytest.approx(1)
    np.testing.assert_allclose(mean, x, atol=1e-9)


def test_pivotal_marginals_over_many_walks(rng):
    x, walks = fractional(rng, 21), 10_000
    uniforms = torch.from_numpy(rng.random((walks, 21)))
    kept = pair_signs(None, torch.from_numpy(x).repeat(walks, 1), uniforms, _Coin()).double().numpy()
    np.testing.assert_array_equal(kept.sum(-1), round((x.sum() + 21) / 2))
    error = np.sqrt((1 - x**2) / walks) / 2
    assert np.abs((kept.mean(0) - (x + 1) / 2) / error).max() < 4.5
    np.testing.assert_array_equal(
        kept[:200] * 2 - 1, [loop(np.zeros((21, 21)), x, u, _fair) for u in uniforms[:200].numpy()]
    )


def _fair(inner, norm2, fair, half):
    return fair


@pytest.mark.rounding
@pytest.mark.parametrize("rule", [_Coin, _GreedySign, lambda: _SelfBalancing(1.0)])
def test_heads_with_different_numbers_of_settled_tokens(rule, rng):
    n = 30
    grams = np.stack([gram_of(rng, n) for _ in range(4)])
    x = np.stack([start(kind, rng, n) for kind in ("halves", "fractions", "capped", "fractions")])
    x[3, :24] = np.tile([1.0, -1.0], 12)
    x[3, 24:] = 0.0
    uniforms = rng.random((4, n))
    batch = pair_signs(*(torch.from_numpy(a) for a in (grams, x, uniforms)), rule())
    for h in range(4):
        np.testing.assert_array_equal(2.0 * batch[h] - 1, run(grams[h], x[h], uniforms[h], rule()))


@pytest.mark.parametrize("rule", [_Coin, _GreedySign, lambda: _SelfBalancing(1.0)])
@pytest.mark.parametrize("kind", STARTS)
def test_the_sum_is_kept_and_settled_tokens_stay(rule, kind, rng):
    n = 40
    for _ in range(10):
        x = start(kind, rng, n)
        end = run(gram_of(rng, n), x, rng.random(n), rule())
        assert end.sum() == pytest.approx(x.sum(), abs=1e-9)
        settled = np.abs(x) == 1
        np.testing.assert_array_equal(end[settled], x[settled])


def test_equal_tokens_are_a_fair_coin(rng):
    """Nothing to balance: no rule divides by zero and the first of each pair is kept by the uniform alone."""
    gram, uniforms = np.ones((12, 12)), rng.random(12)
    expected = np.where(uniforms[:6] < 0.5, 1.0, -1.0)
    for rule in (_Coin(), _GreedySign(), _SelfBalancing(1.0)):
        np.testing.assert_array_equal(run(gram, np.zeros(12), uniforms, rule)[0::2], expected)
    arrays = (torch.from_numpy(a)[None] for a in (gram, np.zeros(12), uniforms))
    np.testing.assert_array_equal(2.0 * kernel_halving_signs(*arrays)[0, 0::2] - 1, expected)


@pytest.mark.parametrize("rule", [_GreedySign, lambda: _SelfBalancing(0.5)])
def test_balancing_beats_the_coin(rule, rng):
    angle = rng.uniform(0, 2 * np.pi, 200)
    gram, norms = np.exp(np.cos(angle[:, None] - angle)), {}
    for name, make in (("rule", rule), ("coin", _Coin)):
        ends = [run(gram, np.zeros(200), rng.random(200), make()) for _ in range(20)]
        norms[name] = np.mean([z @ gram @ z for z in ends])
    assert norms["rule"] < 0.3 * norms["coin"]


RULES = {
    "coin": _Coin,
    "greedy": _GreedySign,
    "self_balancing": lambda: _SelfBalancing(0.7),
    "kernel_halving": lambda: _KernelHalving(5.0),
}


@pytest.mark.rounding
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", [*STARTS, "mixed"])
def test_compiled_pairs_take_the_same_signs_as_the_torch_loop(rule, kind, rng):
    """All heads of a batch, and of a slice of one with other strides; settled heads and odd numbers of tokens too."""
    pytest.importorskip("numba")
    heads, n = 7, 64
    kinds = [STARTS[h % 3] for h in range(heads)] if kind == "mixed" else [kind] * heads
    x = np.stack([start(k, rng, n) for k in kinds])
    if kind == "mixed":
        x[-1] = np.tile([1.0, -1.0], n // 2)
    grams = np.stack([gram_of(rng, n) for _ in range(heads)])
    uniforms = rng.random((heads, n, 2))
    arrays = [torch.from_numpy(a) for a in (grams.transpose(0, 2, 1), x, uniforms)]
    arrays[2] = arrays[2][..., 0]
    found = pair_signs(*arrays, RULES[rule]())
    with backend("torch"):
        assert torch.equal(found, pair_signs(*arrays, RULES[rule]()))
    torch.testing.assert_close(arrays[1], torch.from_numpy(x))  # the start is not written to


@pytest.mark.rounding
@pytest.mark.parametrize("rule", [r for r in RULES if r != "coin"])
@pytest.mark.parametrize("kind", STARTS)
def test_panels_take_the_same_signs_as_the_whole_matrix(rule, kind, rng, monkeypatch):
    pytest.importorskip("numba")
    n = 300
    monkeypatch.setattr(pairs, "_PANELS", 1)
    monkeypatch.setattr(pairs.pairs_compiled, "_PANEL", 20)
    monkeypatch.setattr(pairs.pairs_compiled, "_TILE", 32)
    cache = make_cache("cap_outliers", n=n, d=4, seed=0, heads=2)
    weights = torch.from_numpy(rng.uniform(0, 1, (2, n)))
    features = balancing_features(cache.keys, cache.values, weights, law(cache.keys, 2.0, "tilted", "auto"))
    x = torch.from_numpy(np.stack([start(kind, rng, n) for _ in range(2)]))
    uniforms = torch.from_numpy(rng.random((2, n)))
    found = pair_signs(features, x, uniforms, RULES[rule]())
    assert torch.equal(found, pair_signs(kernel_panel(features, features), x, uniforms, RULES[rule]()))
    with backend("torch"):
        assert torch.equal(found, pair_signs(features, x, uniforms, RULES[rule]()))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["halves", "fractions"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_tokens_of_a_matrix_are_walked_as_their_own_matrix(rule, kind, dtype, rng):
    """In any order, in each head its own; more of them than a block has rows, and rows of other tokens between."""
    heads, n, k = 2, 120, 70
    gram = torch.from_numpy(np.stack([gram_of(rng, n) for _ in range(heads)])).to(dtype)
    tokens = torch.from_numpy(rng.permuted(np.tile(np.arange(n), (heads, 1)), axis=1)[:, :k])
    x = torch.from_numpy(np.stack([start(kind, rng, k) for _ in range(heads)]))
    uniforms = torch.from_numpy(rng.random((heads, k)))
    own = torch.stack([g[t][:, t] for g, t in zip(gram, tokens, strict=True)])
    expected = pair_signs(own, x, uniforms, RULES[rule]())
    assert torch.equal(pair_signs(gram, x, uniforms, RULES[rule](), tokens), expected)
    with backend("torch"):
        assert torch.equal(pair_signs(gram, x, uniforms, RULES[rule](), tokens), expected)


def test_tokens_of_features_are_refused(rng):
    features = tuple(torch.from_numpy(rng.standard_normal(shape)) for shape in ((1, 6, 2), (1, 6, 2), (1, 6)))
    half = torch.zeros(1, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="give those of the tokens alone"):
        pair_signs(features, half, half, _GreedySign(), torch.arange(4)[None])
