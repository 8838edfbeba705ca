"""Holds the coresets of one sample's KV heads in one layer, each of its own size, and attends over them.

A head has one run of rows in two flat tensors. Nothing is padded, so the bytes are those of the tokens kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attention_coresets.attention import Coreset
from attention_coresets.models.softcap import capped

_LOGITS = 2**24  # held at once


@dataclass(frozen=True)
class Ragged:
    """The tokens that are kept of one sample, head after head; never changed, so that caches may share it.

    Parameters
    ----------
    keys, values : Float[Tensor, "stored d"], Float[Tensor, "stored dv"]
        All heads' tokens, those of the first head first.
    indices : Int[Tensor, "stored"]
        Their places in the sample's text, int32, increasing in each head.
    log_weights : Float[Tensor, "stored"], optional
        What attention adds to their logits, in at least float32 whatever the keys' dtype. None: all zero.
    sizes : tuple[int, ...]
        Tokens of each KV head.
    context : int
        Tokens of the sample that they stand for.
    """

    keys: Float[Tensor, "stored d"]
    values: Float[Tensor, "stored dv"]
    indices: Int[Tensor, "stored"]
    log_weights: Float[Tensor, "stored"] | None
    sizes: tuple[int, ...]
    context: int

    @classmethod
    def of(
        cls,
        keys: Float[Tensor, "kv n d"],
        values: Float[Tensor, "kv n dv"],
        coresets: Sequence[Coreset],
        places: Int[Tensor, "kv n"] | None = None,
        context: int | None = None,
    ) -> "Ragged":
        """Copies the coreset of each KV head, of any sizes, out of one sample's cache.

        `places` are the tokens' places in the text, if they are not 0 to n - 1, and `context` its length if not n.

        Raises ValueError for another number of coresets than heads, or tokens that the cache does not have.
        """
        heads, n = keys.shape[:2]
        if len(coresets) != heads:
            raise ValueError(f"{len(coresets)} coresets for {heads} KV heads; give one a head")
        if any(int(coreset.indices[-1]) >= n or int(coreset.indices[0]) < 0 for coreset in coresets):
            raise ValueError(f"coreset indices must lie in 0..{n - 1}, the tokens of the cache")
        rows = torch.cat([coreset.indices + head * n for head, coreset in enumerate(coresets)])
        weighted = any(coreset.log_weights is not None for coreset in coresets)
        weights = [_log_weights(coreset, keys.dtype) for coreset in coresets] if weighted else None
        places = torch.arange(n, device=keys.device).expand(heads, n) if places is None else places
        return cls(
            keys.flatten(0, 1)[rows],
            values.flatten(0, 1)[rows],
            places.flatten()[rows].to(torch.int32),
            None if weights is None else torch.cat(weights),
            tuple(coreset.size for coreset in coresets),
            n if context is None else context,
        )

    @classmethod
    def nothing(cls, keys: Float[Tensor, "kv n d"], values: Float[Tensor, "kv n dv"]) -> "Ragged":
        """Keeps no token of any head."""
        none = torch.zeros(0, dtype=torch.int32, device=keys.device)
        return cls(keys[0, :0], values[0, :0], none, None, (0,) * keys.shape[0], 0)

    def heads(self) -> "Iterator[tuple[slice, Ragged]]":
        """Yields slices of the KV heads, each with tokens of one size: all heads at once where all keep as many.

        On a GPU, where a launch costs more than a copy, all heads at once, padded for the moment with log-weights -inf.
        """
        if len(set(self.sizes)) == 1:
            yield slice(0, len(self.sizes)), self
            return
        if self.keys.is_cuda:
            yield slice(0, len(self.sizes)), self._padded()
            return
        first = 0
        for head, size in enumerate(self.sizes):
            yield slice(head, head + 1), self._rows(slice(first, first + size), size)
            first += size

    def even(self) -> tuple[Float[Tensor, "kv m d"], Float[Tensor, "kv m dv"], Float[Tensor, "kv m"] | None]:
        """Returns keys, values and log-weights of heads that keep equally many tokens, as views."""
        if len(set(self.sizes)) > 1:
            raise ValueError(f"heads keep {min(self.sizes)} to {max(self.sizes)} tokens; take them one by one")
        shape = (len(self.sizes), self.sizes[0])
        weights = None if self.log_weights is None else self.log_weights.unflatten(0, shape)
        return self.keys.unflatten(0, shape), self.values.unflatten(0, shape), weights

    @cached_property
    def _rectangle(self) -> tuple[Int[Tensor, "slots"], Float[Tensor, "slots"]]:
        """For each of largest size x heads slots, its row and what is added to its logit: 0, or -inf for padding."""
        sizes = torch.tensor(self.sizes)
        places = torch.arange(max(self.sizes))
        rows = (sizes.cumsum(0) - sizes)[:, None] + places.minimum(sizes[:, None] - 1)
        wide = torch.promote_types(self.keys.dtype, torch.float32)
        more = torch.zeros(rows.shape, dtype=wide).masked_fill(places >= sizes[:, None], -torch.inf)
        return rows.flatten().to(self.keys.device, torch.int32), more.flatten().to(self.keys.device)

    def _padded(self) -> "Ragged":
        rows, more = self._rectangle
        keys, values, indices = (x.index_select(0, rows) for x in (self.keys, self.values, self.indices))
        weights = more if self.log_weights is None else more + self.log_weights.index_select(0, rows)
        return Ragged(keys, values, indices, weights, (max(self.sizes),) * len(self.sizes), self.context)

    def _rows(self, rows: slice, size: int) -> "Ragged":
        weights = None if self.log_weights is None else self.log_weights[rows]
        return Ragged(self.keys[rows], self.values[rows], self.indices[rows], weights, (size,), self.context)


def _log_weights(coreset: Coreset, dtype: torch.dtype) -> Tensor:
    wide = torch.promote_types(dtype, torch.float32)
    if coreset.log_weights is None:
        return torch.zeros_like(coreset.indices, dtype=wide)
    return coreset.log_weights.to(wide)


def attend_ragged(
    queries: Float[Tensor, "heads q d"],
    kept: Ragged,
    keys: Float[Tensor, "kv t d"],
    values: Float[Tensor, "kv t dv"],
    seen: Bool[Tensor, "q t"] | None,
    scaling: float,
    softcap: float | None = None,
) -> Float[Tensor, "heads q dv"]:
    """Computes one sample's attention over what its heads keep and the t tokens that came later.

    The softmax is that of scaling <q, k_i> + log_weights_i over a head's kept tokens and scaling <q, k_j> over those of
    the later tokens that `seen` shows to the query. Logits, log-weights and sums are in at least float32 whatever the
    dtype of the cache, and under autocast. Query heads of a group share a KV head. With a soft cap c each product x is
    c tanh(x / c) before log-weights are added.

    Cost: one pair of matrix products a KV head, or one for all heads where they keep equally many, and on a GPU (with a
    padded copy of this sample's tokens in this layer, for the moment). At most 2^24 logits
    are held at once, or those of one query.

    Parameters
    ----------
    queries : Float[Tensor, "heads q d"]
    kept : Ragged
    keys, values : Float[Tensor, "kv t d"], Float[Tensor, "kv t dv"]
    seen : Bool[Tensor, "q t"], optional
        None: every query sees every later token.
    scaling : float
    softcap : float, optional

    Returns
    -------
    Float[Tensor, "heads q dv"]
        In the dtype of the queries.
    """
    dtype, wide = queries.dtype, torch.promote_types(queries.dtype, torch.float32)
    queries = queries.to(wide).unflatten(0, (len(kept.sizes), -1)) * scaling  # [kv, group, q, d]
    block = max(1, _LOGITS // (queries[..., 0, 0].numel() * (max(kept.sizes) + keys.shape[-2])))
    shown = [None] * -(-queries.shape[-2] // block) if seen is None else seen.split(block)
    with torch.autocast(queries.device.type, enabled=False):
        parts = [
            torch.cat([_attend(asked[own], part, keys[own], values[own], mask, softcap) for own, part in kept.heads()])
            for asked, mask in zip(queries.split(block, dim=-2), shown, strict=True)
        ]
    return torch.cat(parts, dim=-2).flatten(0, 1).to(dtype)


def _attend(
    queries: Tensor, own: Ragged, keys: Tensor, values: Tensor, seen: Tensor | None, cap: float | None
) -> Tensor:
    own_keys, own_values, weights = own.even()
    rows = queries.flatten(1, 2)  # [kv, group q, d]: broadcasting over the group would copy keys and values
    before = capped(rows @ own_keys.to(rows).mT, cap)  # [kv, group q, m]
    if weights is not None:
        before = before + weights[:, None]
    after = capped(rows @ keys.to(rows).mT, cap)
    if seen is not None:
        hidden = torch.finfo(rows.dtype).min  # finite: padding that sees nothing gets some number, and not NaN
        after = after.unflatten(1, queries.shape[1:3]).masked_fill(~seen, hidden).flatten(1, 2)
    shares = torch.cat([before, after], dim=-1).softmax(dim=-1)
    split = own_keys.shape[1]
    out = shares[..., :split] @ own_values.to(rows) + shares[..., split:] @ values.to(rows)
    return out.unflatten(1, queries.shape[1:3])
