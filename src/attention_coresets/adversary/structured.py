"""Finds the worst query of signed clusters from r numbers, its products with the centres, whatever the n = r d tokens.

With orthonormal centres c_j, the query sum_j x_j c_j has the logit x_j at all tokens of cluster j, and what it has
outside the span of the centres does nothing. Let S be the signs ``[r, d]``, W the weights, omega_j = sum_l W_jl, and
p = softmax(x), p' = softmax(x + log omega). The two attentions are p and p' weighted averages of r vectors,

    D = sum_j p_j s_j / d - sum_j p'_j (W o S)_j / omega_j,

and the gradient of |D|^2 / 2 is p (F D - p F D) - p' (G D - p' G D), where F and G hold these vectors in their rows.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.adversary.ascent import check_counts
from attention_coresets.adversary.starts import RADII
from attention_coresets.adversary.steps import begin, judged, trial
from attention_coresets.inputs import Array, integer, one_generator, tensor
from attention_coresets.theory import check_rho

_AIMED, _SINGULAR, _RANDOM = 64, 8, 64  # directions that a climb may start in
_AT_ONCE = 2**22  # numbers of the queries that are screened together, whatever the number of heads


class StructuredWorst(NamedTuple):
    """The error found ``[*heads]``, and the query that shows it, as its products with the centres ``[*heads, r]``."""

    error: Float[Tensor, "*heads"]
    query: Float[Tensor, "*heads r"]


class _Clusters(NamedTuple):
    """What each cluster answers with in the cache and in the coreset, and the log of its weight in the coreset."""

    full: Float[Tensor, "H r d"]
    kept: Float[Tensor, "H r d"]
    log_weight: Float[Tensor, "H 1 r"]


@torch.no_grad()
def structured_worst(
    signs: Float[Array, "*heads r d"],
    weights: Float[Array, "..."],
    rho: float,
    *,
    restarts: int = 128,
    steps: int = 40,
    polish: int = 200,
    generator: torch.Generator | int | None = None,
) -> StructuredWorst:
    """Maximises the error of a coreset of signed clusters with orthonormal centres over the ball |q| <= rho, float64.

    A lower bound on the supremum, as that of `worst_query`, by climbs of the same kind (steps.py) in r dimensions.
    `restarts` climbs take `steps` steps; the best eighth of them take `polish` more. Random signs have about as many
    hills of nearly one height as clusters, so that restarts are not to be spared.

    Cost a head: 8 r d flops a step of a climb, 4 r d for each of some 3 r + 430 starts that are tried, 2 r^2 d, and an
    eigendecomposition of an r x r matrix. A second or two at r = d = 512 on one core.

    Parameters
    ----------
    signs : Float[Tensor, "*heads r d"]
        +-1, each column summing to 0: `SignedClusters.draw_signs`, or the layout of a cache.
    weights : Float[Tensor, "*heads r d"]
        Those of the coreset, at least 0, in any unit; 0 where a token is dropped.
    rho : float
    restarts, steps, polish : int
    generator : torch.Generator or int, optional
        Draws the random starts, the same for every head. An int is a seed. None: seed 0.

    Returns
    -------
    StructuredWorst

    Raises
    ------
    ValueError
        For rho or counts that are not positive, shapes that differ or r > d, and weights that are negative, not finite
        or all 0 in a head.
    """
    rho = check_rho(rho)
    restarts, steps, polish = check_counts(restarts, steps, polish)
    signs, weights = tensor("signs", signs), tensor("weights", weights)
    _check(signs, weights)
    seed = integer(one_generator(generator))
    heads, (r, d) = signs.shape[:-2], signs.shape[-2:]
    flat = [x.to(torch.float64).reshape(-1, r, d) for x in (signs, weights)]
    chunk = max(1, _AT_ONCE // (3 * r * r))
    found = [
        _climbed(_clusters(s, w), rho, restarts, steps, polish, torch.Generator().manual_seed(seed))
        for s, w in zip(*(x.split(chunk) for x in flat), strict=True)
    ]
    error, query = (torch.cat(part) for part in zip(*found, strict=True))
    return StructuredWorst(error.reshape(heads), query.reshape(*heads, r))


def structured_error(
    signs: Float[Tensor, "*heads r d"], weights: Float[Tensor, "*heads r d"], query: Float[Tensor, "*heads b r"]
) -> Float[Tensor, "*heads b"]:
    """Computes |S^T y / (d sum y) - (W o S)^T y / (omega y)|, y = e^query: the error at given queries, float64.

    A query is given by its products with the centres. Cost: 4 b r d flops a head.
    """
    flat = [x.to(torch.float64).reshape(-1, *x.shape[-2:]) for x in (signs, weights, query)]
    return _difference(_clusters(*flat[:2]), flat[2])[0].norm(dim=-1).reshape(query.shape[:-1])


def _check(signs: Tensor, weights: Tensor) -> None:
    if signs.shape != weights.shape or signs.shape[-2] > signs.shape[-1]:
        shapes = f"{tuple(signs.shape)} and {tuple(weights.shape)}"
        raise ValueError(f"signs and weights must be of one shape [*heads, r, d] with r <= d, got {shapes}")
    sums = weights.sum(dim=(-2, -1))
    if not bool((weights >= 0).all() & sums.isfinite().all() & (sums > 0).all()):
        raise ValueError("weights must be finite, at least 0, and not all 0 in a head")


def _clusters(signs: Float[Tensor, "H r d"], weights: Float[Tensor, "H r d"]) -> _Clusters:
    omega = weights.sum(dim=-1, keepdim=True)
    kept = weights * signs / torch.where(omega > 0, omega, 1.0)  # a cluster that is dropped whole has no share either
    return _Clusters(signs / signs.shape[-1], kept, omega.log().mT)


def _difference(clusters: _Clusters, x: Float[Tensor, "H b r"]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns D ``[H, b, d]``, p and p'."""
    p, q = x.softmax(dim=-1), (x + clusters.log_weight).softmax(dim=-1)
    return p @ clusters.full - q @ clusters.kept, p, q


def _error_and_gradient(clusters: _Clusters, x: Float[Tensor, "H b r"]) -> tuple[Tensor, Tensor]:
    """Returns |D| ``[H, b]`` and the gradient of |D|^2 / 2 ``[H, b, r]``."""
    difference, p, q = _difference(clusters, x)
    gradient = _through(p, difference @ clusters.full.mT) - _through(q, difference @ clusters.kept.mT)
    return difference.norm(dim=-1), gradient


def _through(p: Float[Tensor, "H b r"], along: Float[Tensor, "H b r"]) -> Float[Tensor, "H b r"]:
    """Returns the gradient of <p, along> in the logits of p."""
    return p * (along - (p * along).sum(-1, keepdim=True))


def _climbed(
    clusters: _Clusters, rho: float, restarts: int, steps: int, polish: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Returns the largest error ``[H]`` found and its query ``[H, r]``."""
    x, error = _climb(clusters, _starts(clusters, rho, restarts, generator), rho, steps)
    x, _ = _best(x, error, max(1, restarts // 8))
    x, error = _best(*_climb(clusters, x, rho, polish), 1)
    return error[..., 0], x[..., 0, :]


def _starts(clusters: _Clusters, rho: float, count: int, generator: torch.Generator) -> Float[Tensor, "H count r"]:
    """Chooses `count` starts a head: the better half by their error, the rest at random.

    They come at the radii RADII, in these directions, all made to sum to 0, for a constant added to x changes nothing:
    towards and away from a centre, and from the centre that is most opposed to it towards it, the worst of each by
    their error; singular vectors of the linearised error; random ones.
    """
    apart = clusters.full - clusters.kept  # [H, r, d]
    gram = apart @ apart.mT
    one = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    opposed = one - 0.5 * one[gram.argmin(dim=-1)]  # [H, r, r]
    one = one.expand_as(gram)
    aimed = _unit(torch.cat([one, -one, opposed], dim=-2))
    aimed, _ = _best(aimed, _difference(clusters, rho * aimed)[0].norm(dim=-1), min(_AIMED, aimed.shape[-2]))
    singular = _unit(torch.linalg.eigh(gram).eigenvectors.mT[:, -_SINGULAR:])
    random = torch.randn(_RANDOM, gram.shape[-1], generator=generator, dtype=torch.float64).to(gram)
    pool = torch.cat([aimed, singular, -singular, _unit(random).expand(len(gram), -1, -1)], dim=-2)
    pool = torch.cat([rho * radius * pool for radius in RADII], dim=-2)
    best, _ = _best(pool, _difference(clusters, pool)[0].norm(dim=-1), min(count - count // 2, pool.shape[-2]))
    rest = torch.randint(pool.shape[-2], (count - best.shape[-2],), generator=generator)
    return torch.cat([best, pool[:, rest]], dim=-2)


def _unit(x: Float[Tensor, "*heads b r"]) -> Float[Tensor, "*heads b r"]:
    x = x - x.mean(dim=-1, keepdim=True)
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-30)


def _climb(clusters: _Clusters, x: Tensor, rho: float, steps: int) -> tuple[Tensor, Tensor]:
    now = begin(x, *_error_and_gradient(clusters, x), rho)
    for _ in range(steps):
        tried = trial(now, rho)
        now = judged(now, tried, *_error_and_gradient(clusters, tried), rho)
    return now.query, now.error


def _best(x: Float[Tensor, "H b r"], error: Float[Tensor, "H b"], count: int) -> tuple[Tensor, Tensor]:
    """Returns the `count` queries of largest error."""
    top = error.topk(count, dim=-1)
    return x.gather(-2, top.indices.unsqueeze(-1).expand(-1, -1, x.shape[-1])).contiguous(), top.values
