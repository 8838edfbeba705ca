"""Tells for each KV head how far its output is off at queries that nothing was fitted to."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Coreset
from attention_coresets.models.softcap import capped
from attention_coresets.models.whole.reading import LayerReading, Reading

QUANTILE = 0.95


def held_out_errors(
    reading: Reading, coresets: Mapping[int, Sequence[Coreset]], quantile: float = QUANTILE
) -> Float[Tensor, "layers kv"]:
    """Returns this quantile of |(A'(q) - A(q)) W| / |h| over the held-out queries of each head's group.

    A and A' are the outputs over the whole cache and over the coreset, W the output projection and |h| the typical norm
    of the residual stream. NaN where no queries were held out.
    """
    rows = []
    for index, layer in reading.layers.items():
        rows.append(torch.stack([_error(layer, h, c, quantile) for h, c in enumerate(coresets[index])]))
    return torch.stack(rows)


def _error(layer: LayerReading, head: int, coreset: Coreset, quantile: float) -> Tensor:
    queries = layer.held_out.queries[head].float()  # [group, c, d]
    if not queries.shape[-2]:
        return torch.tensor(torch.nan, device=queries.device)
    keys, values = layer.keys[head].float(), layer.values[head].float()
    logits = capped(queries.flatten(0, 1) @ keys.mT, layer.softcap)
    some, weights = logits[:, coreset.indices], coreset.log_weights
    kept = (some if weights is None else some + weights.to(some)).softmax(-1) @ values[coreset.indices]
    apart = (kept - logits.softmax(-1) @ values).unflatten(0, queries.shape[:2])
    size = (apart @ layer.factors[head].float()).norm(dim=-1) / layer.held_out.norms
    return size.flatten().quantile(quantile)
