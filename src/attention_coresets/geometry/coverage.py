"""Total sensitivity of queries, and how far the sensitivities of some cover the attention of others."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

QUANTILES = (0.5, 0.9, 0.99)
_NEGLIGIBLE = 1e-6  # share of the attention that the quantiles may leave out
_MOST = 1024  # held-out queries that quantiles and shares are taken over


def coverage(calibration: Float[Tensor, "b n"], heldout: Float[Tensor, "h n"], recent: int) -> dict[str, float]:
    """How often a held-out query attends to a token more than any calibration query did; rows are softmax weights.

    ratio = softmax_i(q) / s_i, s_i = max over calibration queries of softmax_i, over held-out pairs (q, i), each
    counted with its share of the attention, softmax_i(q) / h: the ratio's quantiles (coverage_50, _90, _99), its
    largest value at all (coverage_100), and the share of the attention with a ratio above 2 and above 10 (uncovered_2,
    uncovered_10), and the part of the former on the last `recent` tokens, whose places the calibration queries had
    (uncovered_2_recent). A ratio above 1 is where draws from s have no guarantee. All but coverage_100 are of at most
    _MOST held-out queries, drawn as `subsample`. Cost O(h n).
    """
    sensitivity = calibration.amax(dim=0)
    most = heldout.amax(dim=0)
    # a token that neither looks at is covered
    found = {"coverage_100": float(torch.where((most == 0) & (sensitivity == 0), 0.0, most / sensitivity).max())}
    asked = heldout[subsample(len(heldout), _MOST)]
    row, token = (asked > _NEGLIGIBLE / asked.shape[-1]).nonzero(as_tuple=True)
    attention = asked[row, token]
    ratio, order = (attention / sensitivity[token]).sort()
    share = attention[order].cumsum(dim=0)
    wanted = torch.tensor(QUANTILES, dtype=share.dtype, device=share.device) * share[-1]
    places = torch.searchsorted(share, wanted).clamp_max(len(share) - 1)
    found |= {f"coverage_{100 * at:.0f}": float(ratio[place]) for at, place in zip(QUANTILES, places, strict=True)}
    attention, token = attention[order], token[order]
    for limit in (2, 10):
        found[f"uncovered_{limit}"] = float(attention[ratio > limit].sum() / share[-1])
    late = (ratio > 2) & (token >= asked.shape[-1] - recent)
    return found | {"uncovered_2_recent": float(attention[late].sum() / share[-1])}


def total_sensitivity(weights: Float[Tensor, "b n"]) -> float:
    """T = sum_i max_q softmax_i(q) over these rows of softmax weights, between 1 and min(b, n)."""
    return float(weights.amax(dim=0).sum())


def subsample(count: int, most: int) -> Int[Tensor, "s"]:
    """At most this many of 0..count - 1, in order, drawn without replacement with seed 0."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].sort().values
