"""What stands in for keys and values on their way from a cache with coresets to the attention that reads it."""

from typing import Any

import torch
from torch import Tensor

eager: Any = torch.compiler.disable  # for what torch.compile is to leave alone


class Held:
    """Stands where attention expects keys or values: it knows the new ones, and the layer that has the others.

    Attention that does not know coresets would leave out what they keep. Whatever it does with this raises ValueError,
    and nothing has been appended then.

    taken: the layer has the new ones already. Layers that share keys read them again (Gemma 3n and 4).
    """

    taken = False

    def __init__(self, layer: Any, new: Tensor) -> None:
        self.layer, self.new, self.shape, self.dtype, self.device = layer, new, new.shape, new.dtype, new.device

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        found = [x for x in (*args, *(kwargs or {}).values()) if isinstance(x, Held)]
        raise found[0].refusal() if found else ValueError(f"{func} of several tensors in place of keys or values")

    def __getitem__(self, _) -> None:
        raise self.refusal()

    def __getattr__(self, name: str) -> None:
        raise AttributeError(name) if name.startswith("__") else self.refusal()

    def refusal(self) -> ValueError:
        if self.layer.watched:
            return ValueError(
                f"layer {self.layer.index} changes keys or values after its cache has them, as latent and differential "
                "attention do; a coreset would not be of what it attends to: run the model outside the context"
            )
        return ValueError(
            "this cache holds coresets with log-weights, which usual attention leaves out; "
            "run the model inside `with compressed(model, ...)`"
        )
