"""A cell of signed clusters too large for their tokens: r logits a query tell the error of the coordinate subset."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.adversary.structured import structured_worst
from attention_coresets.caches.signed_clusters import SignedClusters
from attention_coresets.coresets.exact.coordinate_subset import coordinates
from attention_coresets.lower_bound import any_weights_floor, equal_weights_floor
from attention_coresets.study.parts import facts, generator_of, named, timed
from attention_coresets.study.table import UNKNOWN
from attention_coresets.theory import exp

_ADVERSARY = 2  # stream of random numbers, as that of cells of errors


def run_cell(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of one cell, a row for each size and head; columns as `study.table.COLUMNS` less its labels.

    The signs are those of `make_cache` for the same seed and head. The floors (iv) and (v) are the formulas for these
    equal weights. By symmetry p* is uniform, so sigma and the radius are both sqrt(1 - 1/r).
    """
    _, parameters = named(config["cache"])
    family, rho, heads = SignedClusters(**parameters), config["rho"], config["heads"]
    draws = (family.draw_signs(np.random.default_rng([config["seed"], head])) for head in range(heads))
    signs = torch.stack([torch.from_numpy(s) for s in draws])  # [heads, r, d]
    d, r = family.d, family.count
    spread = math.sqrt(1 - 1 / r)
    shared = facts(config, n=r * d, d=d) | dict.fromkeys(UNKNOWN, math.nan)
    shared |= {"sigma": spread, "radius": spread, "exponent": rho * spread, "certified_by": "", "fast_path": "none"}
    rows = []
    for size in config["sizes"]:
        weights, construct_seconds = timed(lambda k=size // r: coordinates(signs, k).to(torch.float64))
        errors, adversary_seconds = timed(lambda w=weights, size=size: _errors(config, signs, w, size))
        made = {
            "size": size,
            "floor_iv": equal_weights_floor(d, r, size, rho),
            "floor_v": any_weights_floor(d, r, size, rho),
            "restarts": config["adversary"]["restarts"],
            "seconds_construct": construct_seconds / heads,
            "seconds_adversary": adversary_seconds / heads,
        }
        scale = math.sqrt(d) * exp(rho * spread)
        for head, error in enumerate(errors.tolist()):
            rows.append(shared | made | {"head": head, "reached": 0, "error": error, "constant": size * error / scale})
    return rows


def _errors(
    config: Mapping[str, Any], signs: Float[Tensor, "heads r d"], weights: Float[Tensor, "heads r d"], size: int
) -> Float[Tensor, "heads"]:
    """Head by head, so that large instances fit into memory and a head's starts do not depend on the others."""
    effort = {key: config["adversary"][key] for key in ("restarts", "steps", "polish")}
    found = [
        structured_worst(
            signs[head],
            weights[head],
            config["rho"],
            generator=generator_of(config["seed"], head, _ADVERSARY, size),
            **effort,
        ).error
        for head in range(len(signs))
    ]
    return torch.stack(found)
