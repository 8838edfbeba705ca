"""Result tables that follow stated power laws, in the columns of the study's tables: what figures and reports read."""

import functools
import hashlib
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.planned_fits import fit_all
from attention_coresets.analysis.topics.contents import PLANS
from attention_coresets.analysis.topics.real_heads.tables import GEOMETRY
from attention_coresets.lower_bound import FLOORS, any_weights_floor, equal_weights_floor
from attention_coresets.study.table import CEILINGS, HARDNESS, HEADS, LANGUAGE
from attention_coresets.theory import antipodal_minimum_size

SIGMA = {"cap_outliers": 0.75, "antipodal": 0.9, "low_rank": 0.95}
RADIUS = {"cap_outliers": 1.6, "antipodal": 1.9}
SIZES = (32, 64, 128, 256, 512)


class Noise(np.random.Generator):
    """Normal draws times a scale."""

    def __init__(self, seed: int, scale: float) -> None:
        super().__init__(np.random.PCG64(seed))
        self.scale = scale

    def standard_normal(self, *args, **kwargs):
        return self.scale * super().standard_normal(*args, **kwargs)


def synthetic_table(seed: int = 0, caches: int = 5, noise: float = 1.0) -> pd.DataFrame:
    """Every experiment: err = C sqrt(d) e^{rho sigma or rho R} m^-1 for walks, m^-1/2 for draws, with 5 % * noise."""
    rng = Noise(seed, noise)
    walks = ["walk_tilted", "walk_unweighted", "uniform"]
    grids = {
        "epsilon_rate": (["clusters"], [4096], [8], [1.0], ["walk_tilted", "walk_unweighted", "uniform"]),
        "d_rate": (["sphere"], [2048], [4, 8, 16], [1.0], walks),
        "rho_rate": (["sphere", "cap_outliers", "antipodal"], [2048], [8], [1.0, 2.0, 3.0], walks),
        "constant": (["sphere", "cap_outliers", "antipodal"], [2048], [8], [1.0, 2.0, 3.0], walks),
        "n_independence": (["sphere"], [1024, 2048, 4096], [8], [1.0], ["walk_tilted", "uniform"]),
        "ablation": (["sphere", "clusters"], [2048], [8], [1.0], [*walks, "greedy_tilted"]),
    }
    rows = []
    for experiment, (families, ns, ds, rhos, arms) in grids.items():
        for cache, n, d, rho, arm, seed, size in itertools.product(families, ns, ds, rhos, arms, range(caches), SIZES):
            error = _error(cache, d, rho, arm, size, rng)
            rows.append(_row(experiment, cache, n, d, rho, arm, seed, size) | {"error": error})
    rows += [*_lower_bound(rng, caches), *_antipodal(rng, caches), *_controls(rng, caches), *_real(rng)]
    rows += [*_language(rng), *_enclosed(rng), *_optima(rng), *_league(rng), *_hardness(rng), *_upper_bound(rng)]
    rows += [*_luck(rng), *_joint(rng), *_beyond(rng), *_certified(Noise(6001, noise)), *_facts(Noise(6002, noise))]
    rows += _head_sizes(Noise(6003, noise))
    rows += [
        *_probes(Noise(6005, noise)),
        *_lengths(Noise(6006, noise)),
        *_led(Noise(6008, noise)),
        *_ratios(Noise(6007, noise)),
    ]
    return pd.DataFrame(rows)


def _row(experiment: str, cache: str, n: int, d: int, rho: float, arm: str, seed: int, size: int, **params) -> dict:
    model = next((model for model in ("tilted", "free") if model in arm), "unweighted")
    sigma, radius = SIGMA.get(cache, 1.0), RADIUS.get(cache, 1.0)
    return {
        **{"experiment": experiment, "tier": "quick", "arm": arm, "cache": cache, "coreset": arm.split("_")[0]},
        **{
            "cell": f"{experiment}{cache}{n}{d}{rho}{arm}{seed}",
            "model": model,
            "rho": rho,
            "seed": seed,
            "draw": 0,
            "head": 0,
        },
        **{"n": n, "d": d, "size": size, "reached": 9, "restarts": 10, "certificate": math.nan},
        **{"sigma": sigma, "radius": radius, "exponent": rho * (sigma if model == "tilted" else radius)},
        **{"seconds_construct": 0.1, "seconds_adversary": 0.2, "layer": math.nan, "kv_head": math.nan},
        **dict.fromkeys(
            ("heldout_mean", "heldout_p99", "heldout_max", *FLOORS, *CEILINGS, *HEADS, *LANGUAGE, *HARDNESS), math.nan
        ),
        **{"certified_by": "", "objective": "", "probe": ""},
        **{"cache_params": json.dumps({"n": n, "d": d, **params}), "coreset_params": json.dumps({"scale": "auto"})},
        **{"revision": "0123456789abcdef", "dirty": False, "torch": "2", "numpy": "2", "python": "3.11"},
        **{"device": "cpu", "dtype": "float64"},
    }


def _error(cache: str, d: int, rho: float, arm: str, size: int, rng: np.random.Generator) -> float:
    noise = math.exp(0.05 * rng.standard_normal())
    if arm == "uniform":
        return min(2.0, noise * 0.4 * math.exp(0.6 * rho) / math.sqrt(size))
    x = rho * (SIGMA.get(cache, 1.0) if "tilted" in arm else RADIUS.get(cache, 1.0))
    return min(2.0, noise * 0.2 * math.sqrt(d) * math.exp(x) / size)


def _upper_bound(rng: np.random.Generator) -> list[dict]:
    """The constant 0.1 d^{1/4} e^{-rho / 5} of the tilted walk at every n, with ceilings at rho = 3 twice the error.
    At n = 1024 a second cache, with more, which no comparison between n may see."""
    rows = []
    grid = itertools.product(("sphere", "spread_norms"), (256, 1024), (4, 16, 64), (1.0, 3.0), (0, 1), (0.125, 0.5))
    for cache, n, d, rho, head, share in grid:
        if (n, head) == (256, 1):
            continue
        size = int(share * n)
        error = 0.1 * (1 + head) * d**0.75 * math.exp(0.8 * rho) / size * math.exp(0.02 * rng.standard_normal())
        row = _row("upper_bound", cache, n, d, rho, "walk_tilted", 0, size) | {"head": head, "error": error}
        if rho == 3:
            row |= {"certificate": 2 * error, "ceiling_kernel": 2 * error, "certified_by": "kernel"}
        rows.append(row)
    return rows


def _luck(rng: np.random.Generator) -> list[dict]:
    """Log errors with a deviation of 0.4 between caches and, at noise 1, of 0.05 from draw to draw of one cache."""
    rows = []
    for arm, seed in itertools.product(["walk_tilted", "uniform"], range(6)):
        unit = 0.02 * math.exp(0.4 * (-1) ** seed)
        for draw in range(3):
            row = _row("luck", "sphere", 1024, 8, 1.0, arm, seed, 128)
            error = unit * math.exp(0.05 * rng.standard_normal())
            rows.append(row | {"draw": draw, "cell": f"{row['cell']}{draw}", "error": error})
    return rows


def _lower_bound(rng: np.random.Generator, caches: int) -> list[dict]:
    """1.65 and 3.3 times A sqrt(d/2) at m = n/2, and at least 1.25 times the largest of the bounds. With 2 d random
    centres half of that."""
    rows = []
    shapes = [("lower_bound_orthonormal", 1), ("lower_bound_random", 2)]
    arms = ["walk_tilted", "uniform"]
    for (name, k), d, rho, arm, seed in itertools.product(shapes, [8, 16], [1.0, 2.0], arms, range(caches)):
        n = k * d * d
        unit = equal_weights_floor(d, k * d, n // 2, rho) / math.sqrt(2)
        for size in (n // 4, n // 2, 3 * n // 4):
            row = _row(name, "signed_clusters", n, d, rho, arm, seed, size, clusters=k * d)
            share = 1.1 * math.sqrt((n - size) / size)
            factor = (1.5 if arm == "walk_tilted" else 3.0) * share / k
            row["error"] = unit * factor * math.exp(0.02 * abs(rng.standard_normal()))
            if k == 1:
                own = share * unit
                bounds = (0.5 * unit, 0.8 * own, 1.2 * own, 0.1 * unit)
                row |= dict(zip(FLOORS, bounds, strict=True))
            rows.append(row)
    return rows


def _controls(rng: np.random.Generator, caches: int) -> list[dict]:
    """Equal keys: one error for all rho; product: e^{rho / 2} of it."""
    rows = []
    for arm, seed, size in itertools.product(["walk_tilted", "uniform"], range(caches), (16, 32, 64, 128, 256)):
        error = math.exp(0.05 * rng.standard_normal()) * (1 / size if arm == "walk_tilted" else size**-0.5)
        for cache, rho in itertools.product(["equal_keys", "product"], [1.0, 2.0, 3.0]):
            row = _row("lower_bound_controls", cache, 1024, 8, rho, arm, seed, size)
            rows.append(row | {"error": 0.2 * error * (math.exp(rho / 2) if cache == "product" else 1.0)})
    return rows


def _antipodal(rng: np.random.Generator, caches: int) -> list[dict]:
    """Unweighted: the error whose smallest size is half of m; tilted: e^rho / (4 m)."""
    rows = []
    for rho, arm, seed in itertools.product([1.0, 1.5, 2.0], ["walk_tilted", "walk_unweighted"], range(caches)):
        for size in (2, 4, 8, 16, 32, 64, 128, 256, 512):
            noise = math.exp(0.02 * rng.standard_normal())
            share = noise * size / 2 / antipodal_minimum_size(rho, 0.0)
            error = noise * math.exp(rho) / 4 / size if arm == "walk_tilted" else (1 - share) / (1 + share)
            row = _row("lower_bound_antipodal", "antipodal", 4096, 8, rho, arm, seed, size, values="keys")
            rows.append(row | {"error": min(2.0, max(error, 0.001))})
    return rows


def _enclosed(rng: np.random.Generator) -> list[dict]:
    """Kernel certificate 1.4 e^{(rho - 1) / 2} times the ascent, Taylor twice that; branch and bound within 1e-5."""
    rows = []
    grid = itertools.product(("adversary", "small_caches"), ("sphere", "cap_outliers"), (2, 8), (1.0, 2.0), range(4))
    for name, cache, d, rho, seed in grid:
        n, size = (1024, 256) if name == "adversary" else (12, 4)
        error = 0.01 * math.exp(0.1 * rng.standard_normal())
        kernel = 1.4 * math.exp((rho - 1) / 2) * error
        row = _row(name, cache, n, d, rho, "walk_tilted", seed, size)
        row |= {"error": error, "ceiling_kernel": kernel, "ceiling_taylor": 2 * kernel, "certificate": kernel}
        if d == 2:
            row |= {"branch_lower": error, "branch_upper": error + 1e-5, "branch_gap": 1e-5}
            row |= {"certificate": error + 1e-5, "certified_by": "branch_and_bound"}
        rows.append(row)
    return rows


def _optima(rng: np.random.Generator) -> list[dict]:
    """The optimum 0.3 / m, free weights half of it; the walk twice the optimum, uniform 4 times."""
    rows = []
    factors = {"walk_tilted": 2.0, "walk_unweighted": 2.0, "uniform": 4.0}
    optima = {f"optimum_{model}": 0.5 if model == "free" else 1.0 for model in ("tilted", "unweighted", "free")}
    for cache, seed, (arm, factor) in itertools.product(
        ("sphere", "signed_clusters"), range(4), (factors | optima).items()
    ):
        noise = math.exp(0.02 * rng.standard_normal())
        for size in (2, 4, 8, 16):
            row = _row("optimum", cache, 32, 2, 1.0, arm, seed, size)
            model = arm.split("_")[1] if arm.startswith("optimum") else row["model"]
            noisy = 1.0 if arm.startswith("optimum") else noise
            rows.append(row | {"model": model, "error": 0.3 * factor * noisy / size})
    return rows


def _hardness(rng: np.random.Generator) -> list[dict]:
    """The best subset's constant is 0.45 with e^{rho sigma} where that is sought, 0.42 with e^rho where that is, less
    5 % at n = 12 and at later heads; the start's is 0.2. The walk leaves twice as much."""
    rows = []
    grid = itertools.product(("optimum_tilted", "walk_tilted"), ("own", "rho"), (12, 16), (1.0, 2.0))
    for (arm, objective, n, rho), cache, head in itertools.product(grid, ("sphere", "ragged_clusters"), range(3)):
        row = _row("hardness_search", cache, n, 4, rho, arm, 0, n // 2)
        sigma = 0.9 if objective == "own" else 1.0
        unit = math.sqrt(4) * math.exp(sigma * rho) / (n // 2)
        easier = math.exp(-0.05 * (n == 12) - 0.05 * head - 0.002 * abs(rng.standard_normal()))
        error = unit * (0.45 if objective == "own" else 0.42) * easier * (2 if arm == "walk_tilted" else 1)
        found = {"error": error, "objective": objective, "sigma": sigma, "exponent": sigma * rho}
        found |= {"proven": 0.999 * error if arm == "optimum_tilted" else math.nan}
        found |= {"start_error": 0.2 * math.sqrt(4) * math.exp(rho) / (n // 2)}
        rows.append(row | found | {"head": head})
    return rows


# arm of the league -> its error in units of the cell's
LEAGUE = {"uniform": 4.0, "walk_unweighted": 2.0, "tilted_draws": 3.0, "walk_tilted": 1.0, "greedy_tilted": 1.2}
LEAGUE_RATIO = {"unweighted": 0.6, "tilted": 0.5, "free": 0.4}


def _league(rng: np.random.Generator) -> list[dict]:
    """Ours LEAGUE_RATIO of the cell's best other, give or take 10 %; greedy signs are the best tilted ones at d =
    32 alone. On equal_keys the tilted walk is as good as exact."""
    rows = []
    families = ("sphere", "clusters", "product", "low_rank", "equal_keys")
    for cache, d, rho, head in itertools.product(families, (8, 32), (1.0, 2.0), range(3)):
        unit = 0.01 * rho * math.exp(0.3 * rng.standard_normal())
        errors = LEAGUE | {"nystrom_free": 5.0, "greedy_tilted": 0.8 if d == 32 else 1.2}
        least = {model: min(e for arm, e in errors.items() if model in arm) for model in ("unweighted", "tilted")}
        least["free"] = min(errors.values())
        sway = math.exp(0.1 if d == 8 else -0.1)
        errors |= {f"minimax_{model}": ratio * sway * least[model] for model, ratio in LEAGUE_RATIO.items()}
        if cache == "equal_keys":
            errors["walk_tilted"] = 1e-7
        for arm, error in errors.items():
            row = _row("league", cache, 1024, d, rho, arm, 4001, 128)
            seconds = 2.0 if "minimax" in arm else 0.1
            rows.append(row | {"head": head, "error": unit * error, "seconds_construct": seconds})
    more = [row for row in rows if row["cache"] in ("product", "low_rank")]
    better = [0.4 if "minimax" in row["arm"] else 1.0 for row in more]  # so that none is read for the other
    changes = [{"error": times * row["error"]} for times, row in zip(better, more, strict=True)]
    labels = {"experiment": "league_unseen", "seed": 4005}
    return rows + [row | labels | change for row, change in zip(more, changes, strict=True)]


REAL = {"sinks_uniform": 4.0, "h2o": 2.0, "snapkv": 3.0, "walk_tilted": 1.5, "query_walk": 1.0, "query_walk_max": 1.4}
REAL |= {"query_exchange": 0.6, "query_exchange_causal": 0.9, "query_exchange_weights": 0.8}


def _real(rng: np.random.Generator) -> list[dict]:
    """p99 = REAL * 0.3 sqrt(d) T / m, T of each layer its own; the worst query's error is least for the tilted walk."""
    rows = []
    for text, layer, arm, size in itertools.product(("britannica", "code"), range(6), REAL, (128, 256, 512)):
        T = math.exp(2.5 + 0.2 * layer)
        p99 = 0.3 * REAL[arm] * 8 * T / size * math.exp(0.02 * rng.standard_normal())
        row = _row("real_errors", "model", 4096, 64, 0.25, arm, 0, size, layer=layer, kv_head=0, text=text, start=0)
        found = {"heldout_mean": p99 / 6, "heldout_p99": p99, "heldout_max": 3 * p99, "total_sensitivity": T}
        found |= {"sink_weight": 0.15 * layer, "error": 20 * p99 if arm != "walk_tilted" else 5 * p99}
        rows.append(row | found | {"layer": float(layer), "kv_head": 0.0})
    return rows


def _language(rng: np.random.Generator) -> list[dict]:
    rows = []
    for text, start, arm, size in itertools.product(("britannica", "code"), (0, 9), REAL, (256, 512)):
        added = 20 * REAL[arm] / size * math.exp(0.02 * rng.standard_normal())
        row = _row("real_language", "model", 2048, 64, 4.0, arm, 0, size, text=text, start=start)
        found = {"loss": 2.5 + added, "loss_full": 2.5, "kl": added, "kl_p99": 5 * added, "agreement": 0.9}
        found |= {"needle_found": 0.25, "needle_found_full": 1.0, "error": math.nan, "sigma": math.nan}
        rows.append(row | found)
    return rows


FACTS = {
    "replay_fit": (1.0, 0.95),
    "kvzip": (5.0, 0.6),
    "kvzip_plus": (4.0, 0.7),
    "snapkv": (6.0, 0.1),
    "attention_matching": (2.5, 0.5),
}
WEIGHTED = ("replay_fit", "attention_matching")


def _facts(rng: np.random.Generator) -> list[dict]:
    """KL 2 / m of ours and FACTS times that of others; facts found 0.95 of the full cache's 0.9 at n/8, 0.99 at n/4."""
    rows = []
    for text, start, arm, size in itertools.product(("britannica", "code"), (1, 2, 3), FACTS, (256, 512)):
        factor, found = FACTS[arm]
        row = _row("real_tasks", "model", 2048, 64, 4.0, arm, 0, size, text=text, start=start)
        kl = 2 * factor / size * math.exp(0.02 * rng.standard_normal())
        share = (0.99 if (arm, size) == ("replay_fit", 512) else found) + 0.002 * rng.standard_normal()
        row |= {"model": "free" if arm in WEIGHTED else "unweighted", "error": math.nan, "sigma": math.nan}
        row |= {"loss": 2.5 + kl, "loss_full": 2.5, "kl": kl, "kl_p99": 5 * kl, "agreement": 0.9}
        rows.append(row | {"needle_found": 0.9 * share, "needle_found_full": 0.9})
    # the second model: ours has the root of its share of others' divergences
    second = [dict(row, experiment="real_tasks_gemma", d=256) for row in rows]
    for row in second:
        row["kl"] = 0.05 * math.sqrt(row["kl"])
    # one choice of ours changed: without weights twice the divergence and half of the facts
    ours = [row | {"experiment": "real_ablation"} for row in rows if (row["arm"], row["size"]) == ("replay_fit", 256)]
    name = {"arm": "replay_fit_unweighted", "model": "unweighted"}
    unweighted = [row | name | {"cell": f"{row['cell']} unweighted", "kl": 2 * row["kl"]} for row in ours]
    for row in unweighted:
        row["needle_found"] /= 2
    return rows + second + ours + unweighted


def _head_sizes(rng: np.random.Generator) -> list[dict]:
    """The walk's p99 is 0.3 sqrt(d) T / m, T from 2 to 200 in a row of layers; Gamma is T give or take a factor of 1.5,
    the spectral tail T / m itself, and the heuristic's errors know nothing of T."""
    rows = []
    grid = itertools.product(("britannica", "code"), range(12), (64, 128, 256, 512, 1024))
    for (text, layer, size), arm in itertools.product(grid, ("query_walk", "expected_attention")):
        T, sway = 2 * 100 ** (layer / 11), 1.5 ** (1 if layer % 2 else -1)
        row = _row("real_sizes", "model", 2048, 64, 4.0, arm, 0, size, layer=layer, kv_head=0, text=text, start=7)
        p99 = 0.3 * 8 * (T if arm == "query_walk" else 2 + layer % 3) / size * math.exp(0.02 * rng.standard_normal())
        told = {"total_sensitivity": T, "gamma": sway * T, "leave_out": 0.1 * T**0.9}
        told |= {"spectral_tail": T / size, "query_variance": sway * T / size}
        model = "tilted" if arm == "query_walk" else "unweighted"
        row |= {"model": model, "error": math.nan, "layer": float(layer), "kv_head": 0.0, "heldout_mean": p99 / 6}
        rows.append(row | told | {"heldout_p99": p99, "heldout_max": 3 * p99})
    return rows + [row | {"experiment": "real_sizes_gemma"} for row in rows if row["layer"] in (5, 11)]


PROBES = {"one_kind": 0.9, "pairs": 0.95, "quotes": 0.99}


def _probes(rng: np.random.Generator) -> list[dict]:
    """Tokens right: PROBES of the full cache's 0.8 with ours at n/8, half of that with others."""
    rows = []
    places = itertools.product(PROBES, ("britannica", "code"), (1, 2, 3), ("replay_fit", "kvzip", "snapkv"), (256, 512))
    for probe, text, start, arm, size in places:
        row = _row("real_probes", "model", 2048, 64, 4.0, arm, 0, size, text=text, start=start)
        part = PROBES[probe] * (1 if arm == "replay_fit" else 0.5) + 0.002 * rng.standard_normal()
        row |= {"model": "free" if arm == "replay_fit" else "unweighted", "error": math.nan, "sigma": math.nan}
        row |= {"probe": probe, "cell": row["cell"] + probe, "loss": 2.6, "loss_full": 2.5, "kl": 2 / size}
        row |= {"needle_found": 0.2, "needle_found_full": 0.3, "needle_loss": 1.0 / part, "needle_loss_full": 0.9}
        rows.append(row | {"needle_right": 0.8 * part, "needle_right_full": 0.8})
    return rows


def _lengths(rng: np.random.Generator) -> list[dict]:
    """KL (n/m)^2 / n of ours, 4 times that of others; facts found 0.95 of the full cache's."""
    rows = []
    places = itertools.product((1024, 4096), ("britannica", "code"), (1, 2, 3), ("replay_fit", "kvzip"), (4, 8))
    for n, text, start, arm, share in places:
        row = _row("real_lengths", "model", n, 64, 4.0, arm, 0, n // share, text=text, start=start)
        kl = share**2 / n * (1 if arm == "replay_fit" else 4) * math.exp(0.02 * rng.standard_normal())
        row |= {"model": "free" if arm == "replay_fit" else "unweighted", "error": math.nan, "sigma": math.nan}
        row |= {"loss": 2.5 + kl, "loss_full": 2.5, "kl": kl, "kl_p99": 5 * kl, "agreement": 0.9}
        rows.append(row | {"needle_found": 0.95 + 0.002 * rng.standard_normal(), "needle_found_full": 1.0})
    return rows


def _led(rng: np.random.Generator) -> list[dict]:
    """Without a lead 0.1 fewer facts and 1 / 0.9 of the KL; 0.1 nats are added to texts said again."""
    rows = []
    places = itertools.product((2048, 4096), ("britannica", "code"), (1, 2, 3), ("replay_fit", "kvzip"))
    for n, text, start, arm in places:
        row = _row("real_lead", "model", n, 64, 4.0, f"{arm}_leadless", 0, n // 8, text=text, start=start)
        kl = {2048: 2 / 256, 4096: 64 / 4096}[n] / 0.9 * (1 if arm == "replay_fit" else 4)
        kl *= math.exp(0.02 * rng.standard_normal())
        row |= {"model": "free" if arm == "replay_fit" else "unweighted", "error": math.nan, "sigma": math.nan}
        row |= {"loss": 2.5 + kl, "loss_full": 2.5, "kl": kl, "kl_p99": 5 * kl, "agreement": 0.9}
        rows.append(row | {"needle_found": 0.85 + 0.002 * rng.standard_normal(), "needle_found_full": 1.0})
        again = row | {
            "experiment": "real_repetition",
            "arm": arm,
            "probe": "repetition",
            "cell": row["cell"] + "again",
        }
        again |= {"needle_right": 0.8, "needle_right_full": 0.9, "needle_found": 0.0, "needle_found_full": 0.0}
        rows.append(again | {"needle_loss": 0.5 + 0.002 * rng.standard_normal(), "needle_loss_full": 0.4})
    return rows


def synthetic_heads() -> pd.DataFrame:
    """One row a head, as results/<tier>/heads.parquet."""
    layer = np.tile(np.arange(6), 2)
    columns = {
        "text": np.repeat(["britannica", "code"], 6),
        "layer": layer,
        "kv_head": np.zeros(12, dtype=int),
        **dict.fromkeys(GEOMETRY, np.linspace(0.1, 0.9, 12)),
        "rho_uncentred": 65.0 + layer,
        "rho_centred": 47.0 + layer,
        "total_sensitivity": np.exp(2.5 + 0.2 * layer),
        "log_total_sensitivity": 2.5 + 0.2 * layer,
        "log_total_sensitivity_heldout": 2.5 + 0.2 * layer,
        "uncovered_10": 0.004 * layer,
        "gamma": np.exp(2.7 + 0.2 * layer),
        "n": np.full(12, 4096),
        "revision": "0123456789abcdef",
    }
    return pd.DataFrame(columns)


@functools.cache
def synthetic_results(noise: float = 1.0) -> Results:
    """What `load` makes of the folder that `write_results` writes, at noise 1."""
    table = synthetic_table(noise=noise)
    return Results("quick", table, fit_all(table, PLANS, replicates=25), synthetic_heads())


def write_results(results: Path) -> Path:
    """A folder of results as the scripts leave it: table, fits, heads."""
    made = synthetic_results()
    folder = results / made.tier
    folder.mkdir(parents=True)
    made.table.to_parquet(folder / "table.parquet")
    synthetic_heads().to_parquet(folder / "heads.parquet")
    write_fits(folder, made.fits)
    return folder


def write_fits(folder: Path, records: list[dict]) -> None:
    """fits.json for the table that is in the folder."""
    source = hashlib.sha256((folder / "table.parquet").read_bytes()).hexdigest()
    (folder / "fits.json").write_text(json.dumps({"provenance": {"table_sha256": source}, "fits": records}))


def _joint(rng: np.random.Generator) -> list[dict]:
    """Errors in units of floor (iv): 1.05 to 2, of draws with the term that makes them errors of draws; the best
    coreset of any weights 1.3 times floor (v)."""
    rows = []
    factors = {"walk_tilted": 1.4, "walk_tilted_kernel_swaps": 1.1, "herding_tilted": 1.05, "coordinate_subset": 1.02}
    for d, r, rho in [(d, r, rho) for d in (8, 16, 32, 64) for r in (8, 16, 32) if r <= d for rho in (0.25, 0.5, 1.0)]:
        if r < 7 * math.expm1(rho):
            continue
        n, a = r * d, math.expm1(rho)
        for arm, head in itertools.product((*factors, "uniform", "kernel_halving_tilted"), range(4)):
            factor = factors.get(arm, math.sqrt(1 + r / a**2)) * math.exp(0.01 * rng.standard_normal())
            parts = [("lower_bound_exponents", "hadamard", n // 2)]
            if arm == "coordinate_subset":
                grid = itertools.product(("hadamard", "random"), (n // 8, n // 4, n // 2))
                parts += [("lower_bound_large", signs, size) for signs, size in grid]
            for experiment, signs, size in parts:
                error = factor * equal_weights_floor(d, r, size, rho)
                rows.append(_joint_row(experiment, (n, d, r, rho), arm, head, size, signs) | {"error": error})
        for arm, head, size in itertools.product(("walk_tilted_refit", "minimax_free"), range(4), (n // 4, n // 2)):
            factor = 1.3 + 0.1 * (arm == "walk_tilted_refit") + 0.01 * abs(rng.standard_normal())
            row = _joint_row("lower_bound_weights", (n, d, r, rho), arm, head, size, "hadamard")
            rows.append(row | {"error": factor * any_weights_floor(d, r, size, rho)})
    return rows


def _beyond(rng: np.random.Generator) -> list[dict]:
    """Errors over floor (iv) that follow the law of random signs."""
    rows, rho = [], 0.5
    for d, r, head in itertools.product((32, 64), (16, 32), range(8)):
        n, factor = r * d, rho * (1 + math.sqrt(r / d)) / math.expm1(rho) * math.exp(0.002 * rng.standard_normal())
        row = _joint_row("lower_bound_beyond", (n, d, r, rho), "herding_tilted", head, n // 2, "hadamard")
        rows.append(row | {"error": factor * equal_weights_floor(d, r, n // 2, rho)})
    return rows


def _ratios(rng: "Noise") -> list[dict]:
    """Errors over floor (iv) that grow as d^0.03 and fall with r/d, which itself falls as d grows here."""
    rows, arms = [], ("walk_tilted", "herding_tilted")
    for (d, r), arm, head in itertools.product(
        ((8, 8), (16, 16), (32, 16), (64, 32), (64, 16), (128, 32)), arms, range(8)
    ):
        n, factor = r * d, d**0.03 * (1 + r / d) * math.exp(0.002 * rng.standard_normal())
        row = _joint_row("lower_bound_ratios", (n, d, r, 0.5), arm, head, n // 2, "hadamard")
        rows.append(row | {"error": factor * equal_weights_floor(d, r, n // 2, 0.5)})
    return rows


def _joint_row(
    experiment: str, at: tuple[int, int, int, float], arm: str, head: int, size: int, signs: str
) -> dict[str, object]:
    n, d, r, rho = at
    row = _row(experiment, "signed_clusters", n, d, rho, arm, 0, size, clusters=r, signs=signs)
    return row | {"head": head, "cell": f"{row['cell']}{r}{signs}"}


# arm of `certified` -> its certificate in units of the cache's; errors are an eighth of it but for ours and its start
CERTIFIED = {"walk_tilted": 2.0, "herding_tilted": 1.3, "walk_free_kernel_swaps": 1.0, "minimax_free": 1.6}
CERTIFIED |= {"certificate_free": 0.6, "certificate_free_weights": 0.9, "certificate_free_fixed": 0.8}


def _certified(rng: np.random.Generator) -> list[dict]:
    """Ours 0.6 times the best other's, give or take 20 % by rho, with 1.05 times the error of what it begins from. On
    equal_keys one coreset is as good as exact."""
    rows = []
    for cache, d, rho, head in itertools.product(("sphere", "clusters", "equal_keys"), (8, 32), (1.0, 2.0), range(3)):
        unit = 0.1 * rho * math.exp(0.3 * rng.standard_normal())
        for arm, found in CERTIFIED.items():
            sway = 1.2 ** (2 * rho - 3) if arm.startswith("certificate") else 1.0
            ceiling = unit * found * sway * math.exp(0.02 * rng.standard_normal())
            error = unit / 8 * {"walk_free_kernel_swaps": 1.0, "certificate_free": 1.05}.get(arm, found)
            error *= math.exp(0.02 * rng.standard_normal())
            if cache == "equal_keys" and arm == "minimax_free":
                ceiling = error = 1e-9
            row = _row("certified", cache, 512, d, rho, arm, 6001, 64) | {"head": head, "error": error}
            rows.append(row | {"certificate": ceiling, "ceiling_kernel": ceiling, "certified_by": "kernel"})
    return rows
