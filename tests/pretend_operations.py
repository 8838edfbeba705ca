"""The pretended GPU's tensors, and what its operations do there: launch, wait, refuse."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

CUDA, STAND_IN = torch.device("cuda", 0), torch.device("meta")
_FREE = {  # no kernel, or one that only brings a number to the host
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "_unsafe_view"),
    "_local_scalar_dense",
}
_WAITS = {  # the host waits for a number, a size or an error code
    *(
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "bincount",
        "equal",
    ),
    *("_linalg_check_errors", "_linalg_eigh", "_linalg_svd", "linalg_lstsq", "cholesky_inverse"),
}


class OnDevice(torch.Tensor):
    """A tensor that says it is on cuda:0; `held` has its numbers."""

    held: torch.Tensor
    device = property(lambda self: CUDA)
    is_cuda, is_cpu, is_meta = True, False, False
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "OnDevice":
        shape, offset = held.shape, held.storage_offset()
        made = torch.Tensor._make_wrapper_subclass(
            cls, shape, strides=held.stride(), storage_offset=offset, dtype=held.dtype, device=STAND_IN
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError("a tensor of the pretended device outlived pretend_cuda()")

    def __repr__(self) -> str:
        return f"OnDevice({self.held!r})"


@dataclass(frozen=True)
class Kind:
    """What counts of an operation, by its name in ATen."""

    name: str
    launches: bool
    waits: bool
    copies: bool
    indexes: bool
    takes_scalars: bool
    in_place: bool
    reshapes_in_place: bool


@cache
def kind_of(func: Any) -> Kind:
    name, overload = func._schema.name.partition("::")[2], func._schema.overload_name
    alias = func._schema.returns[0].alias_info if func._schema.returns else None
    view = alias is not None and not alias.is_write
    return Kind(
        name,
        launches=not view and name not in _FREE,
        waits=name in _WAITS or (name, overload) == ("repeat_interleave", "Tensor"),
        copies=name in ("_to_copy", "copy_"),
        indexes=name in ("index", "index_put", "index_put_", "_index_put_impl_"),
        takes_scalars=torch.Tag.pointwise in func.tags or name.startswith(("index_fill", "fill", "masked_fill")),
        in_place=name.endswith("_"),
        reshapes_in_place=torch.Tag.inplace_view in func.tags,
    )


def check_devices(kind: Kind, args, tensors: list[torch.Tensor]) -> None:
    others = [x for x in tensors if not isinstance(x, OnDevice)]
    if kind.copies or not others or len(others) == len(tensors):
        return
    if kind.indexes:  # indices may be the CPU's, and so may one value
        value = args[2] if len(args) > 2 else None
        fine = isinstance(args[0], OnDevice) and (value is None or isinstance(value, OnDevice) or not value.dim())
    else:
        in_place = kind.in_place and not isinstance(args[0], OnDevice)
        fine = kind.takes_scalars and not in_place and not any(x.dim() for x in others)
    if not fine:
        shapes = ", ".join(f"{x.device} {tuple(x.shape)}" for x in tensors)
        raise RuntimeError(f"Expected all tensors to be on the same device, but {kind.name} found {shapes}")


def by_mask(args) -> bool:
    """Whether tensors index by a mask: its entries must be counted first, unless one value goes to all of them."""
    if not isinstance(args[1], list | tuple):
        return False
    masks = [x for x in args[1] if isinstance(x, torch.Tensor) and x.dtype in (torch.bool, torch.uint8)]
    one = len(args) > 2 and args[2].numel() == 1 and len(args[1]) == 1
    return bool(masks) and not one


def tensors_among(inputs: Iterable[Any]) -> list[torch.Tensor]:
    """Those among the inputs of an operation, where they may stand in lists."""
    found = []
    for x in inputs:
        if isinstance(x, torch.Tensor):
            found.append(x)
        elif isinstance(x, list):
            found += [part for part in x if isinstance(part, torch.Tensor)]
    return found
