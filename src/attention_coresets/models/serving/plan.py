"""Who compresses a layer of a cache, and what became of a prompt."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Layer = Any  # a CoresetLayer, which knows its plan


class Plan(ABC):
    """What a layer asks whoever compresses it; `compression.Compression` is one.

    open: False once no layer is to be compressed any more.
    """

    open: bool = True

    @abstractmethod
    def wanted(self, layer: Layer) -> int:
        """Returns of how many last positions the layer is to keep the queries."""

    @abstractmethod
    def due(self, layer: Layer) -> bool:
        """Tells whether the layer stores more than it may."""

    @abstractmethod
    def compress(self, layer: Layer) -> None:
        """Replaces what the layer stores of the samples that are due."""


@dataclass
class Report:
    """What became of one cache's prompt.

    Parameters
    ----------
    bytes_before, bytes_after : int
        Memory of the layers that coresets replace, when the prompt was read and after.
    context : int
        Tokens of the prompt, of the longest sample.
    size : int
        Tokens kept in each KV head, of the sample that keeps most.
    """

    bytes_before: int = 0
    bytes_after: int = 0
    context: int = 0
    size: int = 0


def storage_bytes(values: Iterable[Any]) -> int:
    """Measures the storages of the tensors among these values, each once."""
    storages = [x.untyped_storage() for x in values if isinstance(x, Tensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
