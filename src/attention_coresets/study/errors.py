"""A cell of errors: make the cache, build a coreset of each size, find its worst query, and report rows."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from attention_coresets.adversary import WorstQuery, worst_query
from attention_coresets.attention import Cache, Coreset, base_weights
from attention_coresets.bodies import QueryBody, ellipsoid
from attention_coresets.caches import CACHES, make_cache, token_order
from attention_coresets.compiled import compiled_runs
from attention_coresets.coresets import make_coreset
from attention_coresets.coresets.shared import Shared
from attention_coresets.geometry.coverage import total_sensitivity
from attention_coresets.lower_bound import FLOORS, signed_clusters_bounds
from attention_coresets.models.captured import load_head
from attention_coresets.models.heads import RealHead, heldout_errors
from attention_coresets.study.identity import has_floors
from attention_coresets.study.parts import device_of, facts, generator_of, named, timed
from attention_coresets.study.provenance import fast_path
from attention_coresets.theory import exp, radius, tilt

Rows = Iterator[dict[str, Any]]
_CONSTRUCTION, _ADVERSARY = 1, 2  # streams of random numbers, apart from each other and from the cache's


def run_cell(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of one cell, a row for each size and head; columns as `study.table.COLUMNS` less its labels and LANGUAGE,
    and HEADS where the cache is no model's.

    `config`: resolved, as `study.config.Study`. The cache depends on `seed` and its own parameters alone, and the
    random numbers of construction and adversary on the seed and the size, the construction's on the draw too:
    constructions are compared on the same cache, from the same starts. Cache and coreset of head h are the same,
    whatever `heads`.
    """
    device, dtype = device_of(config), getattr(torch, config["compute"]["dtype"])
    name, parameters = named(config["cache"])
    cache = make_cache(name, seed=config["seed"], heads=config["heads"], dtype=dtype, device=device, **parameters)
    head = _real_head(name, parameters)
    body = _body(config, head, cache)
    each = facts_of_heads(config, cache, body)
    if head is not None:
        each = [fact | _of_head(head) for fact in each]
    heldout = _heldout(head, cache)
    shared = Shared()
    construct = _construction(config, cache, head, body, shared)
    floors = _floors(config, cache)
    rows: list[dict[str, Any]] = []
    for size in config["sizes"]:
        before, saved = compiled_runs(), shared.saved
        coreset, construct_seconds = timed(lambda size=size: construct(size))
        worst, adversary_seconds = timed(lambda c=coreset, size=size: attack(config, cache, c, size, body))
        alone = construct_seconds + shared.saved - saved  # as if it were the only size
        common = {
            "size": size,
            "seconds_construct": alone / config["heads"],
            "seconds_adversary": adversary_seconds / config["heads"],
            "fast_path": fast_path(before),
        }
        own = zip(each, found_by(config, worst, each, size), floors(coreset), strict=True)
        rows += [fact | common | found | floor | heldout(coreset) for fact, found, floor in own]
    return rows


def _body(config: Mapping[str, Any], head: RealHead | None, cache: Cache) -> QueryBody | None:
    """What queries the error is the worst of: None for the ball |q| <= rho; `ellipsoid`, of the calibration queries
    moved behind the cache, of which it holds 95 % at rho = 1."""
    if config.get("body", "ball") == "ball":
        return None
    assert head is not None, "checked with the configuration"
    return ellipsoid(head.moved[None]).to(cache.keys)


def _construction(
    config: Mapping[str, Any], cache: Cache, head: RealHead | None, body: QueryBody | None, shared: Shared
) -> Callable[[int], Coreset]:
    """size -> coreset; what sizes have in common is found once.

    Of a real head, constructions defined on keys and values as the model computes them get these, and those that ask
    for queries the calibration queries and the tokens' positions. Those that take a WeightedCache get the body's view.
    """
    name, parameters = named(config["coreset"])
    construct, extra = make_coreset(name, **parameters), {}
    whole = cache
    if head is not None and construct.in_model_units:
        order = torch.from_numpy(token_order(CACHES["model"](**named(config["cache"])[1]), cache.n, config["seed"]))
        original, queries = head.in_model_units(moved=construct.moved)
        cache = Cache(original.keys[order][None], original.values[order][None]).to(cache.keys)
        extra = {"queries": queries[None].to(cache.keys), "positions": order[None].to(cache.keys.device)}

    viewed = body if construct.takes_weights else None  # the body in whose view it works, if any
    if viewed is not None:
        cache = viewed.view(cache)

    draw = [config["draw"]] if config.get("draw", 0) else []  # the first has the numbers that all cells had before

    def build(size: int) -> Coreset:
        generators = [generator_of(config["seed"], h, _CONSTRUCTION, size, *draw) for h in range(config["heads"])]
        coreset = construct(cache, size=size, rho=config["rho"], generator=generators, shared=shared, **extra)
        return coreset if viewed is None else viewed.outside(coreset, whole)

    return build


def attack(config: Mapping[str, Any], cache: Cache, coreset: Coreset, size: int, body: QueryBody | None) -> WorstQuery:
    generator = generator_of(config["seed"], 0, _ADVERSARY, size)
    return worst_query(cache, coreset, config["rho"], generator=generator, body=body, **config["adversary"])


def facts_of_heads(config: Mapping[str, Any], cache: Cache, body: QueryBody | None) -> list[dict[str, Any]]:
    """What all sizes share, head by head; sigma and the radius are those of the keys as the body's queries see them."""
    rho, seen = config["rho"], cache if body is None else body.view(cache)
    sigma = tilt(seen.keys, rho, base_weights(seen)).sigma.tolist()
    R = radius(seen.keys).tolist()
    shared = facts(config, n=cache.n, d=cache.d)
    # the rate's exponent; no rate is known for free weights
    factor = {"tilted": sigma, "unweighted": R, "free": [math.nan] * len(R)}[shared["model"]]
    own = zip(sigma, R, factor, strict=True)
    return [shared | {"head": h, "sigma": s, "radius": r, "exponent": rho * f} for h, (s, r, f) in enumerate(own)]


def found_by(config: Mapping[str, Any], worst: WorstQuery, facts: list[dict[str, Any]], size: int) -> Rows:
    """The adversary's columns, head by head, and the constant m err / (sqrt(d) e^{rho sigma}) of the tilted bound."""
    nothing = torch.full_like(worst.error, math.nan)
    ceilings, enclosure = worst.ceilings or {}, worst.enclosure
    columns = {
        "error": worst.climbed,  # what branch and bound is compared with
        "reached": worst.reached,
        "certificate": nothing if worst.certificate is None else worst.certificate,
        "ceiling_kernel": ceilings.get("kernel", nothing),
        "ceiling_taylor": ceilings.get("taylor", nothing),
        "branch_lower": nothing if enclosure is None else enclosure.lower,
        "branch_upper": nothing if enclosure is None else enclosure.upper,
    }
    names = worst.certified_by or ("",) * len(facts)
    gap = math.nan if enclosure is None else config["adversary"]["gap"]
    rows = zip(facts, names, zip(*(x.tolist() for x in columns.values()), strict=True), strict=True)
    for fact, name, values in rows:
        row = dict(zip(columns, values, strict=True))
        scale = math.sqrt(fact["d"]) * exp(fact["rho"] * fact["sigma"])
        yield {
            **row,
            "restarts": worst.restarts,
            "certified_by": name,
            "branch_gap": gap,
            "constant": size * row["error"] / scale,
        }


def _of_head(head: RealHead) -> dict[str, float]:
    """Total sensitivity of the calibration queries moved behind the cache, and the weight of the sink."""
    moved, heldout = ((queries @ head.cache.keys.mT).softmax(dim=-1) for queries in (head.moved, head.heldout))
    return {"total_sensitivity": total_sensitivity(moved), "sink_weight": float(heldout[:, 0].mean())}


def _real_head(family: str, parameters: dict[str, Any]) -> RealHead | None:
    if family != "model":
        return None
    return load_head(CACHES[family](**parameters))


def _heldout(head: RealHead | None, cache: Cache) -> Callable[[Coreset], dict[str, float]]:
    """Errors at a real head's own later queries; NaN for synthetic caches, which have none."""
    if head is None:
        return lambda coreset: dict.fromkeys(("heldout_mean", "heldout_p99", "heldout_max"), math.nan)
    return lambda coreset: {k: float(v) for k, v in heldout_errors(head, coreset, cache).items()}


def _floors(config: Mapping[str, Any], cache: Cache) -> Callable[[Coreset], list[dict[str, float]]]:
    """The bounds (i), (ii), (iv), (v) of lower_bound.py, head by head; NaN but for orthonormal signed clusters."""
    if not has_floors(config["cache"]):
        return lambda coreset: [dict.fromkeys(FLOORS, math.nan)] * config["heads"]

    def floors(coreset: Coreset) -> list[dict[str, float]]:
        bounds = signed_clusters_bounds(cache, coreset, config["rho"])
        columns = torch.stack([bounds.i, bounds.ii, bounds.iv, bounds.v], dim=-1)
        return [dict(zip(FLOORS, row, strict=True)) for row in columns.tolist()]

    return floors
