"""BalanceKV against a plain loop, token by token, in NumPy: index for index and weight for weight."""

import math

import numpy as np
import pytest
import torch

from attention_coresets import Cache, make_cache, make_coreset, worst_query
from attention_coresets.coresets.randomness import draw
from tables import generators, small_cache

RHO = 2.0


def reference(variant, keys, values, size, u, block=None, c=None, gamma=4.0):
    """Kept tokens and their weights of one head; u [stages, 2, n]."""
    n, d = keys.shape
    x = (keys - keys.mean(0)) / d**0.25
    tokens, weight = list(range(n)), dict.fromkeys(range(n), 1.0)
    targets = [size]
    while 2 * targets[0] < n:
        targets.insert(0, 2 * targets[0])
    for stage, target in enumerate(targets):
        count = 2 * (len(tokens) - target)
        drawn = sorted(range(len(tokens)), key=lambda p: u[stage, 1, p])
        halved = [tokens[p] for p in sorted(drawn[:count])]
        rest = [tokens[p] for p in sorted(drawn[count:])]
        if variant == "published":
            halved.sort(key=lambda i: math.floor(math.log2(np.linalg.norm(values[i]))))
        signs, width = {}, block or (2 * size if variant == "published" else 128)
        for start in range(0, count, width):
            part = halved[start : start + width]
            coins = u[stage, 0, start : start + len(part)]
            if variant == "published":
                signs |= published(x, values, part, coins, c)
            else:
                signs |= shipped(x, values, part, coins, weight, gamma)
        ups = [i for i in halved if signs[i] > 0]
        kept = ups if variant == "published" else until_half(halved, signs, weight)
        assert len(kept) == count // 2
        tokens = kept + rest
    return sorted(tokens), [weight[i] for i in sorted(tokens)]


def published(x, values, part, coins, c):
    longest, largest = max(x[i] @ x[i] for i in part), max(values[i] @ values[i] for i in part)
    r2 = math.exp(longest) * largest
    c = 30 * math.log(len(part) / 0.01) if c is None else c
    signs = {}
    for i, coin in zip(part, coins, strict=True):
        inner = sum(math.exp(x[i] @ x[j]) * (values[i] @ values[j]) * s for j, s in signs.items())
        sides = list(signs.values())
        up = coin < 0.5 - inner / (2 * c * r2)
        if sides.count(1) == len(part) // 2:
            up = False
        elif sides.count(-1) == len(part) // 2:
            up = True
        signs[i] = 1 if up else -1
    return signs


def shipped(x, values, part, coins, weight, gamma):
    mean = np.mean([x[i] for i in part], axis=0)
    signs = {part[0]: 1}
    for i, coin in zip(part[1:], coins[1:], strict=True):
        inner = sum(
            math.exp((x[i] - mean) @ (x[j] - mean))
            * (weight[i] * weight[j] * (values[i] @ values[j]) + 1e-8 + 0.025)
            * s
            for j, s in signs.items()
        )
        signs[i] = 1 if coin < 0.5 - gamma * inner else -1
    return signs


def until_half(halved, signs, weight):
    half, cut = len(halved) // 2, 0
    for sign in (1, -1):
        places = [p for p, i in enumerate(halved) if signs[i] == sign]
        if len(places) >= half:
            cut = max(cut, places[half - 1])
    losing = signs[halved[cut]]
    doubled = [i for p, i in enumerate(halved) if p <= cut and signs[i] != losing]
    for i in doubled:
        weight[i] *= 2
    return doubled + halved[cut + 1 :]


@pytest.mark.parametrize("variant", ["published", "shipped"])
@pytest.mark.parametrize(("n", "size"), [(64, 16), (50, 9), (37, 36), (33, 1), (128, 32)])
@pytest.mark.parametrize("parameters", [{}, {"block": 8}, {"c": 0.5, "gamma": 0.3}])
def test_index_for_index(variant, n, size, parameters):
    cache = small_cache("cap_outliers", n=n, d=4, heads=2)
    cache = Cache(cache.keys, cache.values * torch.linspace(0.2, 3.0, n, dtype=torch.float64)[:, None])
    coreset = make_coreset("balancekv", variant=variant, **parameters)(cache, size, RHO, generators(4, 5))
    stages = math.ceil(math.log2(n / size))
    for h in range(2):
        u = draw(*generators(4 + h), 1, stages, 2, n)[0].numpy()
        wanted, weights = reference(variant, cache.keys[h].numpy(), cache.values[h].numpy(), size, u, **parameters)
        assert coreset.indices[h].tolist() == wanted
        if variant == "published":
            assert coreset.log_weights is None
        else:
            np.testing.assert_allclose(coreset.log_weights[h].exp(), weights, rtol=1e-12)


def test_shipped_weights_count_the_tokens_up_to_the_tail():
    """Each halving drops half of the weight and doubles what came before the cut: n tokens are counted up to that."""
    cache = make_cache("sphere", n=512, d=8, heads=4)
    coreset = make_coreset("balancekv", variant="shipped")(cache, 128, RHO, *generators(0))
    total = coreset.log_weights.exp().sum(-1)
    assert ((total > 0.8 * 512) & (total <= 512)).all()
    assert set(coreset.log_weights.exp().round(decimals=9).unique().tolist()) <= {1.0, 2.0, 4.0}


def test_shipped_does_not_mind_a_shift_and_huge_exponents():
    cache = small_cache("cap_outliers", n=40, d=4, heads=2)
    construct = make_coreset("balancekv", variant="shipped")
    moved = Cache(cache.keys + torch.tensor([3.0, -1.0, 0.5, 2.0]), cache.values)
    assert torch.equal(
        construct(cache, 9, RHO, *generators(0)).indices, construct(moved, 9, RHO, *generators(0)).indices
    )
    large = Cache(40 * cache.keys, 1e3 * cache.values)
    assert construct(large, 9, RHO, *generators(0)).indices.shape == (2, 9)


@pytest.mark.parametrize("parameters", [{"variant": "shipped"}, {"variant": "published", "c": 1.0}])
def test_balanced_is_better_than_uniform(parameters):
    cache = make_cache("sphere", n=512, d=4, heads=6, seed=1)
    errors = [
        worst_query(cache, make_coreset(name, **p)(cache, 64, RHO, *generators(2)), RHO, restarts=16).error.mean()
        for name, p in (("uniform", {}), ("balancekv", parameters))
    ]
    assert errors[1] < 0.75 * errors[0]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"variant": "paper"}, "variant must be one of published, shipped"),
        ({"scale": "invsqrt"}, "did you mean 'inv_sqrt_d'"),
        ({"block": 7}, "block must be even"),
        ({"block": 0}, "block must be above 0"),
        ({"c": 0.0}, "c must be above 0"),
        ({"gamma": -1.0}, "gamma must be above 0"),
    ],
)
def test_parameters_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        make_coreset("balancekv", **parameters)
