"""Holds the cache of one attention layer: a coreset for each sample and KV head, and the tokens that came after it."""

import copy
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicLayer

ModelCache = Any  # a Cache of transformers: what its layers have differs by kind


class CoresetLayer(DynamicLayer):
    """A cache's layer that stores `size` tokens of a context of n, then new tokens, appended as in any other layer.

    It reports the length n + new, so that positions go on as if nothing had been dropped. Its mask counts the stored
    tokens as the last ones before the new, so that causality holds for one or many new tokens at once. Only attention
    that adds the log-weights may read it: `update` raises ValueError outside such a run (`compressed`, `continuation`).

    Parameters
    ----------
    keys, values : Float[Tensor, "b kv m d"], Float[Tensor, "b kv m dv"]
        Of the stored tokens, m = size at first.
    indices : Int[Tensor, "b kv m"]
        Their places in the context.
    log_weights : Float[Tensor, "b kv m"], optional
        What attention adds to their logits. None: all zero.
    context : int
        n.
    """

    def __init__(
        self,
        keys: Float[Tensor, "b kv m d"],
        values: Float[Tensor, "b kv m dv"],
        indices: Int[Tensor, "b kv m"],
        log_weights: Float[Tensor, "b kv m"] | None,
        context: int,
    ) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys: Tensor = keys
        self.values: Tensor = values
        self.indices, self.log_weights, self.context = indices, log_weights, context
        self.open = False

    @property
    def size(self) -> int:
        """Returns how many tokens of the context are stored in each sample and KV head."""
        return self.indices.shape[-1]

    def bias(self, length: int) -> Float[Tensor, "b kv 1 length"] | None:
        """Returns what attention adds to the logits of stored and new tokens, `length` in all: 0 for the new ones."""
        if self.log_weights is None:
            return None
        return torch.nn.functional.pad(self.log_weights, (0, length - self.size)).unsqueeze(-2)

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Appends as `DynamicLayer.update`; ValueError where attention would leave the log-weights out."""
        if not self.open:
            raise ValueError(
                "this cache holds coresets with log-weights, which usual attention leaves out; "
                "run the model inside `with compressed(model, ...)`"
            )
        return super().update(key_states, value_states, *args, **kwargs)

    def get_seq_length(self) -> int:
        """Returns the logical length: all tokens of the context, kept or not, and the new ones."""
        return self.context - self.size + self.keys.shape[-2]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Returns (number of keys, logical place of the first): the mask's last keys are the new tokens."""
        return self.keys.shape[-2] + query_length, self.context - self.size

    def crop(self, tokens_to_remove: int) -> None:
        """Removes new tokens, as `DynamicLayer.crop`; ValueError where that would cut into the coreset."""
        new = self.keys.shape[-2] - self.size
        if abs(tokens_to_remove) > new:
            raise ValueError(f"cannot remove {abs(tokens_to_remove)} tokens: only {new} came after the coreset")
        super().crop(tokens_to_remove)

    def reset(self) -> None:
        raise ValueError("a layer that holds a coreset cannot be reset; start a new cache instead")

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx.to(self.keys.device))

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self.indices = self.indices.repeat_interleave(repeats, dim=0)
        if self.log_weights is not None:
            self.log_weights = self.log_weights.repeat_interleave(repeats, dim=0)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.indices = self.indices[indices]
        if self.log_weights is not None:
            self.log_weights = self.log_weights[indices]


def branch(cache: ModelCache) -> ModelCache:
    """Makes a cache that can be extended without a trace in this one: layers of its own, the same tensors.

    Holds for layers that grow by making new tensors, as the dynamic ones and `CoresetLayer` do.
    """
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    return twin


def cache_bytes(cache: ModelCache) -> int:
    """Measures the bytes that the cache's tensors keep alive: whole storages, of views too, each once."""
    tensors = [x for layer in cache.layers for x in vars(layer).values() if isinstance(x, Tensor)]
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    return sum(storages.values())
