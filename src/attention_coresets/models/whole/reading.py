"""What a replay leaves: each layer's cache, and the queries that looked at it. No model is needed to work on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

CHUNK = 256  # tokens of the context that one forward repeats
LEAD = 32  # tokens before a chunk that are repeated with it


class Repeating(NamedTuple):
    """How a text is repeated, as `read` has it."""

    chunk: int
    repeated: float
    sloped: bool
    lead: int


@dataclass(frozen=True)
class Lookback:
    """Queries of one layer that look at a cache, and the t tokens after it that they see as well.

    Parameters
    ----------
    queries : Float[Tensor, "*kv group q d"]
        Times the layer's scaling.
    keys, values : Float[Tensor, "*kv t d"], Float[Tensor, "*kv t dv"]
        Of the tokens after the cache, which asked these queries: each sees those up to its own. t = 0: none.
    norms : Float[Tensor, "q"]
        Of the residual stream where each query was asked, over the gain of a norm behind the attention, if any.
    slopes : Float[Tensor, "q"], optional
        What `slopes.slopes` has of the same places, where a score asks for it.
    """

    queries: Float[Tensor, "*kv group q d"]
    keys: Float[Tensor, "*kv t d"]
    values: Float[Tensor, "*kv t dv"]
    norms: Float[Tensor, "q"]
    slopes: Float[Tensor, "q"] | None = None


@dataclass(frozen=True)
class LayerReading:
    """A layer's cache and what looked at it.

    Parameters
    ----------
    keys, values : Float[Tensor, "kv n d"], Float[Tensor, "kv n dv"]
    factors : Float[Tensor, "kv group dv dv"]
        C of each query head: |v C| is the norm of v's share in the residual stream.
    replays : Sequence[Lookback]
        One a chunk of the context.
    asked : Float[Tensor, "kv group c d"]
        Queries of the context's last positions, times the scaling, as the model asked them.
    leverage : Float[Tensor, "kv n"]
        Of each key among the head's keys as they were before they got positions, about their mean.
    softcap : float, optional
        The cap c of logits x, c tanh(x / c), that a model may have (Gemma 2).
    moved, held_out : Lookback
        The same as if they were asked right after the context; of every 32 positions the last 8 are held out, to tell
        the error at queries that nothing was fitted to.
    """

    keys: Float[Tensor, "kv n d"]
    values: Float[Tensor, "kv n dv"]
    factors: Float[Tensor, "kv group dv dv"]
    replays: Sequence[Lookback]
    asked: Float[Tensor, "kv group c d"]
    leverage: Float[Tensor, "kv n"]
    moved: Lookback
    held_out: Lookback
    softcap: float | None = None


@dataclass(frozen=True)
class Reading:
    """A context of one sample that the model has read and repeated.

    layers: those with full attention.
    """

    layers: Mapping[int, LayerReading]

    @property
    def n(self) -> int:
        return next(iter(self.layers.values())).keys.shape[-2]

    @property
    def device(self) -> torch.device:
        return next(iter(self.layers.values())).keys.device

    @property
    def heads(self) -> int:
        """Returns the number of KV heads of all layers together."""
        return sum(layer.keys.shape[0] for layer in self.layers.values())
