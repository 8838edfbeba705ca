"""Thinformer against a plain loop over buckets and pairs, in NumPy, with the source's own constants."""

import math

import numpy as np
import pytest
import torch

from attention_coresets import Cache, make_coreset
from attention_coresets.coresets.balancing.buckets import rounds
from attention_coresets.coresets.published import thinformer
from tables import generators, repeated, small_cache


def halved(keys, values, b2, uniforms, factor):
    """Which of each consecutive pair stays, by the published rule: keys already times sqrt a^2, factor the source's
    log multiplier. The first pair is decided by its own coin."""
    gram = np.exp(keys @ keys.T) * (values @ values.T + b2)
    total, longest, kept = np.zeros(len(keys)), 0.0, []  # <each token, kept - left>
    for t, u in enumerate(uniforms):
        i, j = 2 * t, 2 * t + 1
        length = math.sqrt(gram[i, i] + gram[j, j] - 2 * gram[i, j])
        longest = max(longest, length)
        threshold = factor * length * longest
        alpha = total[i] - total[j]
        stays = i if u < min(max(0.5 * (1 - alpha / threshold), 0.0), 1.0) else j
        kept.append(stays)
        total += gram[:, stays] - gram[:, i + j - stays]
    return kept


def multiplier(n, g, width, last, delta=0.5):
    """1/2 + log(2 s / delta_s), as the repository computes it for n a power of 4, with its names."""
    log2_sqrt_bin_size_minus_g = int(math.log2(n) - 2) // 2 - g
    halve_prob = delta / 4 ** (g + 1) / log2_sqrt_bin_size_minus_g / n
    thin_frac = 1 / (1 + 2 * log2_sqrt_bin_size_minus_g)
    prob = delta * thin_frac / (4 ** (g + 1) * n) if last else halve_prob * (1 - thin_frac)
    return 0.5 + math.log(2 * width / (prob * width * width))


@pytest.mark.parametrize(("n", "g"), [(256, 0), (256, 1), (1024, 2)])
def test_rounds_and_constants_are_the_sources(n, g, monkeypatch):
    """Buckets of 4^(g+1) tokens that double, the last round one bucket; each with the published log multiplier."""
    seen = []
    keep = thinformer._Halving

    def spy(log_factor):
        seen.append(log_factor)
        return keep(log_factor)

    monkeypatch.setattr(thinformer, "_Halving", spy)
    size = 2**g * math.isqrt(n)
    make_coreset("thinformer")(small_cache("sphere", n, 4), size, 1.0, generators(0)[0])
    steps = rounds(n, size, "compress", g)
    widths = [4 ** (g + 1) * 2**place for place in range(len(steps) - 1)] + [2 * size]
    assert [step.width for step in steps] == widths
    assert [step.buckets * step.width for step in steps] == [step.tokens for step in steps]
    expected = [multiplier(n, g, w, last=k == len(widths) - 1) for k, w in enumerate(widths)]
    assert sorted(set(np.round(seen, 9))) == sorted(set(np.round(expected, 9)))


@pytest.mark.parametrize("scale", ["one", "inv_sqrt_d"])
def test_one_halving_is_the_plain_loop(scale):
    """At size n / 2 there is one bucket, in the order of the tokens."""
    cache = small_cache("cap_outliers", 48, 4, seed=3)
    cache = Cache(cache.keys + 0.3, cache.values * (1 + torch.arange(48, dtype=torch.float64)[:, None] / 20))
    found = make_coreset("thinformer", scale=scale)(cache, 24, 1.0, generators(5)[0])
    uniforms = torch.rand(1, 1, 2, 48, generator=generators(5)[0], dtype=torch.float64)[0, 0, 0, :24].numpy()
    keys = cache.keys.numpy() * (1.0 if scale == "one" else 4**-0.25)
    factor = 0.5 + math.log(2 * 2 * (2 * 24**2 / 0.5) / 48)
    kept = halved(keys, cache.values.numpy(), float(cache.values.abs().max()) ** 2, uniforms, factor)
    assert found.indices.tolist() == kept
    assert found.log_weights is None


def test_it_errs_less_than_a_coin_for_each_pair():
    cache = repeated(small_cache("clusters", 256, 4, seed=1), 40)
    keys = cache.keys[0]
    gram = (keys @ keys.T).exp() * (cache.values[0] @ cache.values[0].T + cache.values.abs().max() ** 2)
    distance = {}
    for name, parameters in (("thinformer", {"scale": "one"}), ("paired_coin", {"model": "unweighted"})):
        kept = make_coreset(name, **parameters)(cache, 32, 1.0, generators(*range(40))).indices
        x = torch.full((40, 256), -1 / 256, dtype=torch.float64).scatter_add(
            -1, kept, torch.full((40, 32), 1 / 32).double()
        )
        distance[name] = float(((x @ gram) * x).sum(-1).mean())
    assert distance["thinformer"] < 0.9 * distance["paired_coin"]


@pytest.mark.parametrize("parameters", [{"scale": "rho"}, {"delta": 0.0}])
def test_parameters_that_mean_nothing_are_refused(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        make_coreset("thinformer", **parameters)
