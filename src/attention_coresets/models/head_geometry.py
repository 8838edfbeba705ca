"""Measures what the bounds and the conjectures say of a real head: one row of heads.parquet."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.geometry.coverage import coverage, subsample, total_sensitivity
from attention_coresets.geometry.enclosing_ball import enclosing_ball
from attention_coresets.geometry.factorisation import balancing_constant
from attention_coresets.geometry.linear_map import best_linear_map
from attention_coresets.models.heads import RealHead, calibration_weights
from attention_coresets.theory import radius, tilt

GAMMA_QUERIES = 512  # rows that Gamma is computed for, drawn from the calibration queries with seed 0


def geometry(head: RealHead) -> dict[str, float]:
    """Computes the measures of `norm_measures`, `attention_measures`, `sensitivity_measures` and `coverage` together.

    All queries are asked from behind the cache: those for calibration are the moved ones. total_sensitivity_causal is T
    of the same where they stood, each over what it saw.

    Cost: about 4 s and 0.6 GB for a head of 4096 tokens, 64 dimensions, 1536 calibration and 3072 held-out queries on
    one core.
    """
    heldout = (head.heldout @ head.cache.keys.mT).softmax(dim=-1)
    calibration = (head.moved @ head.cache.keys.mT).softmax(dim=-1)
    return {
        **norm_measures(head),
        **attention_measures(head, heldout),
        **sensitivity_measures(calibration, heldout),
        "total_sensitivity_causal": total_sensitivity(calibration_weights(head)),
        **coverage(calibration, heldout, recent=len(calibration) // head.group),
    }


def norm_measures(head: RealHead) -> dict[str, float]:
    """Measures rho after each change of origin and basis that leaves attention as it is, and the tilt's exponents.

    rho is the largest query norm times the largest key norm times the scaling, over all of the head's queries. All are
    in nats.

    rho_uncentred: as the model has keys and queries.
    rho_centred: keys about their mean.
    rho_ball: keys about the centre of their smallest enclosing ball.
    rho_linear: after the best linear map, within 1 %; rho_linear_lower is certified.
    rho_query_ball, rho_query_linear, rho_query_linear_lower: as rho_ball and rho_linear, with the queries about a
        centre q0 of their own. The queries are then q0 + delta, and the cache is one with log-weights <q0, k_i>.
    sigma, radius: of the tilt at rho_centred, and R, which is 1 by the normalisation.
    exponent_X: rho * sigma of the tilt of these keys for the ball of radius rho_X, with those log-weights where the
    queries have a centre. The tilt does not depend on the origin of the keys, so exponent_centred is that of
    rho_uncentred and rho_ball, too.
    """
    keys, queries = head.cache.keys, torch.cat([head.moved, head.heldout])
    _, ball = enclosing_ball(keys)
    center, query_ball = enclosing_ball(queries)
    linear, both = best_linear_map(queries, keys), best_linear_map(queries, keys, center=True)
    sigma = float(tilt(keys, head.rho).sigma)
    return {
        "rho_uncentred": head.rho * float((keys + head.key_mean / head.key_radius).norm(dim=-1).max()),
        "rho_centred": head.rho,
        "rho_ball": head.rho * ball,
        "rho_linear": linear.rho,
        "rho_linear_lower": linear.lower,
        "rho_query_ball": query_ball * ball,
        "rho_query_linear": both.rho,
        "rho_query_linear_lower": both.lower,
        "sigma": sigma,
        "radius": float(radius(keys)),
        "exponent_centred": head.rho * sigma,
        "exponent_linear": _exponent(linear.queries, linear.keys),
        "exponent_query_ball": _exponent(queries - center, keys, keys @ center),
        "exponent_query_linear": _exponent(both.queries, both.keys, keys @ both.query_center),
    }


def _exponent(
    queries: Float[Tensor, "b d"], keys: Float[Tensor, "n d"], log_weights: Float[Tensor, "n"] | None = None
) -> float:
    """Computes rho * sigma of the tilt for the ball about 0 that holds these queries; the keys' scale is free."""
    rho = float(queries.norm(dim=-1).max())
    return 0.0 if rho == 0 else rho * float(tilt(keys, rho, log_weights).sigma)


def attention_measures(head: RealHead, heldout: Float[Tensor, "h n"]) -> dict[str, float]:
    """Measures what attention over the cache looks like.

    half_range, half_range_median: half of (largest - smallest logit) over the cache, largest and median over all
        queries. The first is a floor under every rho but those with a query centre.
    sink_weight: mean weight of token 0 at held-out queries.
    effective_sample_size, entropy: 1 / sum softmax^2, and the entropy in nats; medians over held-out queries.
    effective_rank: of the centred keys, (sum lambda)^2 / sum lambda^2 of their covariance's eigenvalues (participation
        ratio), between 1 and d.
    """
    keys = head.cache.keys
    logits = torch.cat([head.moved, head.heldout]) @ keys.mT
    half_range = (logits.amax(dim=-1) - logits.amin(dim=-1)) / 2
    eigenvalues = torch.linalg.eigvalsh(keys.mT @ keys)
    return {
        "half_range": float(half_range.max()),
        "half_range_median": float(half_range.median()),
        "sink_weight": float(heldout[:, 0].mean()),
        "effective_sample_size": float((1 / heldout.square().sum(dim=-1)).median()),
        "entropy": float(torch.special.entr(heldout).sum(dim=-1).median()),
        "effective_rank": float(eigenvalues.sum().square() / eigenvalues.square().sum()),
    }


def sensitivity_measures(calibration: Float[Tensor, "b n"], heldout: Float[Tensor, "h n"]) -> dict[str, float]:
    """Measures what may stand in for e^rho: total sensitivity T and balancing constant Gamma >= T of softmax weights.

    total_sensitivity, log_total_sensitivity: of the calibration queries over the whole cache; with _heldout, of the
        held-out ones.
    gamma: Gamma of GAMMA_QUERIES calibration queries (all where there are fewer), within a few per cent; gamma_lower is
        certified; gamma_sensitivity is their T. With _heldout, the same of as many held-out queries.
    """
    sums = {"": total_sensitivity(calibration), "_heldout": total_sensitivity(heldout)}
    found = {f"total_sensitivity{kind}": value for kind, value in sums.items()}
    found |= {f"log_total_sensitivity{kind}": math.log(value) for kind, value in sums.items()}
    for kind, weights in (("", calibration), ("_heldout", heldout)):
        chosen = weights[subsample(len(weights), GAMMA_QUERIES)]
        made = balancing_constant(chosen)
        found |= {f"gamma{kind}": made.gamma, f"gamma_lower{kind}": made.lower}
        found[f"gamma_sensitivity{kind}"] = total_sensitivity(chosen)
    return found
