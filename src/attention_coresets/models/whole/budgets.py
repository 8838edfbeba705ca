"""Spends one budget on the tokens of all KV heads of a model, by scores."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BUDGETS = ("pooled", "layer", "even")
SAFE = 0.2  # share of an even budget that "layer" grants each head, as AdaKV has it


def check_count(count: int, heads: int, n: int, fixed: int) -> None:
    """Raises ValueError unless the heads can keep `count` tokens in all: those that are fixed and one more at least."""
    least = heads * min(n, fixed + 1)
    if not least <= count <= heads * n:
        raise ValueError(
            f"{heads} heads of {n} tokens, {fixed} of which each keeps anyway, keep {least} to {heads * n} tokens in "
            f"all, got {count}"
        )


def spend(
    scores: Float[Tensor, "layers kv n"],
    count: int,
    kept: Bool[Tensor, "layers kv n"],
    budget: str = "pooled",
) -> Bool[Tensor, "layers kv n"]:
    """Returns which tokens are kept: `count` in all, those of `kept` and then by score.

    pooled: the largest scores of the whole model. Each head keeps one token beside those of `kept` at least.
    layer: as many in each layer, pooled over its heads, each of which keeps at least a fifth of an even share
        (AdaKV: Feng et al., arXiv 2407.11550).
    even: as many in each head.

    Where the count does not divide, the first layers or heads get one more. Tokens of `kept` come first, then those
    that a head keeps at least, then those of score inf; of equal ones the earlier.

    Raises ValueError where `kept` alone is more than a part of the budget.
    """
    layers, kv, _ = scores.shape
    heads = layers * kv
    safe = max(1, int(SAFE * count / heads) if budget == "layer" else 0)
    tiers = 2 * kept.long()
    if budget != "even":
        tiers += _largest(scores.flatten(0, 1), -kept.flatten(0, 1).long(), [safe] * heads).view(kept.shape) & ~kept
    rows = {"even": heads, "layer": layers, "pooled": 1}[budget]
    counts, fixed = _parts(count, rows), kept.reshape(rows, -1).sum(-1).tolist()
    if short := [i for i in range(rows) if fixed[i] > counts[i]]:
        raise ValueError(
            f"{fixed[short[0]]} tokens are kept anyway where budget = {budget!r} has {counts[short[0]]} of {count}"
        )
    return _largest(scores.reshape(rows, -1), tiers.reshape(rows, -1), counts).view(scores.shape)


def by_shares(
    scores: Float[Tensor, "layers kv n"],
    count: int,
    kept: Bool[Tensor, "layers kv n"],
    shares: Float[Tensor, "_ _"],
) -> Bool[Tensor, "layers kv n"]:
    """Returns which tokens are kept where each head has a share of the budget: `count` in all.

    A head keeps the tokens of `kept` and, where the count allows it for all, one more at least, and all of its own at
    most: the others share what that leaves, in proportion. Which of a head's tokens are kept is told by score.

    Raises ValueError for shares of other heads than there are, or where `kept` alone is more than the count.
    """
    if shares.shape != scores.shape[:2] or not bool((shares >= 0).all()) or not float(shares.sum()) > 0:
        raise ValueError(
            f"shares must be {list(scores.shape[:2])} numbers of at least 0, got {list(shares.shape)}; "
            "measure them for this model"
        )
    n = scores.shape[-1]
    fixed = kept.flatten(0, 1).sum(-1).double().cpu()
    if float(fixed.sum()) > count:
        raise ValueError(f"{int(fixed.sum())} tokens are kept anyway, and count = {count}")
    least = (fixed + 1).clamp_max(n)
    least = least if float(least.sum()) <= count else fixed
    part = (shares.double().flatten() / shares.sum() + 1e-9).cpu()  # heads of share 0 come last, and may be needed
    low, high = 0.0, n / float(part.min())
    for _ in range(100):
        level = (low + high) / 2
        few = float((level * part).clamp(least, torch.full_like(part, n)).sum()) < count
        low, high = (level, high) if few else (low, level)
    exact = (low * part).clamp(least, torch.full_like(part, n))
    sizes = exact.floor().long()
    more = torch.where(sizes < n, exact - sizes, -1.0).sort(descending=True, stable=True).indices
    sizes[more[: count - int(sizes.sum())]] += 1
    return _largest(scores.flatten(0, 1), kept.flatten(0, 1).long(), sizes.tolist()).view(scores.shape)


def _parts(count: int, parts: int) -> list[int]:
    return [count // parts + (i < count % parts) for i in range(parts)]


def _largest(
    scores: Float[Tensor, "rows n"], tiers: Int[Tensor, "rows n"], counts: list[int]
) -> Bool[Tensor, "rows n"]:
    """Tells the first of each row: by tier, then by score, the largest first, of equal ones the earlier."""
    places = _places(scores.double())
    places = _places(tiers * scores.shape[-1] - places)
    return places < torch.tensor(counts, device=scores.device)[:, None]


def _places(rank: Tensor) -> Int[Tensor, "rows n"]:
    return rank.sort(dim=-1, descending=True, stable=True).indices.argsort(dim=-1)
