"""A CUDA device for machines that have none: tensors that say they are on cuda:0, and what their work would cost there.

    with pretend_cuda() as counts:
        construct(cache.to("cuda"), 64, 2.0)
    print(counts)

Numbers lie on the CPU, inside tensors of the type `OnDevice`, which C++ takes for tensors without storage ("meta").
Every operation on them comes by `_Device`. It refuses what a real device refuses, counts, and computes on the CPU, so
that tokens and errors are the CPU's. Refused are tensors of two devices in one operation (0-dim CPU tensors are let
into elementwise ones, and the CPU's indices too), `.numpy()`, and generators of the other device.

Counted, by line of the package: a launch for every operation of torch that computes something, though some take
several kernels; a wait wherever the host must know a result before it goes on; a transfer from the host.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import CodeType, FrameType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

CUDA, _STAND_IN = torch.device("cuda", 0), torch.device("meta")
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
_FROM_HOST = {torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor}  # data of the host, by C++ alone
_PLACES = ("/attention_coresets/", "/benchmarks/", "/transformers/")


@dataclass
class Counts:
    """What a GPU would have had to do, by the line that asked for it; and the device's limits.

    `largest` is the size in bytes of the largest tensor that its memory can take. capability is that of an H100; 8.6 is
    that of a GPU whose float64 is slow.
    """

    launches: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    transfers: Counter[str] = field(default_factory=Counter)
    largest: float = float("inf")
    capability: tuple[int, int] = (9, 0)

    def clear(self) -> None:
        for counter in (self.launches, self.waits, self.transfers):
            counter.clear()

    def __str__(self) -> str:
        parts = (("launches", self.launches), ("waits", self.waits), ("transfers", self.transfers))
        lines = [f"{name}: {sum(found.values())}" for name, found in parts]
        for (_, found), line in zip(parts, list(lines), strict=True):
            lines += [f"  {line.split(':')[0]} {number:7d} {where}" for where, number in found.most_common(8)]
        return "\n".join(lines)


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
            cls, shape, strides=held.stride(), storage_offset=offset, dtype=held.dtype, device=_STAND_IN
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError("a tensor of the pretended device outlived pretend_cuda()")

    def __repr__(self) -> str:
        return f"OnDevice({self.held!r})"


class _Device(TorchDispatchMode):
    """Runs each operation of torch that has a tensor of the device, or makes one."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        here, asked = OnDevice in types, kwargs.get("device")
        made_here = here if asked is None else asked == _STAND_IN
        if not (here or made_here):
            return func(*args, **kwargs)
        kind, tensors = _kind(func), _tensors((*args, *kwargs.values()))
        _check_devices(kind, args, tensors)
        self._count(kind, args, tensors, (here, made_here))
        wrapped = {id(x.held): x for x in tensors if isinstance(x, OnDevice)}
        out = func(*_each(_held, args), **{name: _each(_held, x) for name, x in kwargs.items()})
        if kind.reshapes_in_place:  # such as squeeze_: the outer tensor's shape changes too
            with no_dispatch():
                func(*args, **kwargs)
        if not made_here:
            return out.clone() if kind.name == "_to_copy" else out  # no copy shares memory with its source
        return _each(lambda x: self._made(x, wrapped) if isinstance(x, torch.Tensor) else x, out)

    def _made(self, x: torch.Tensor, wrapped: dict[int, OnDevice]) -> OnDevice:
        if id(x) in wrapped:  # changed in place
            return wrapped[id(x)]
        if x.nbytes > self.counts.largest and x._base is None:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {x.nbytes} bytes.")
        return OnDevice(x)

    def _count(self, kind: "_Kind", args, tensors: list[torch.Tensor], sides: tuple[bool, bool]) -> None:
        where, counts = _line(), self.counts
        if kind.launches:
            counts.launches[where] += 1
        if kind.name == "copy_":
            sides = isinstance(args[1], OnDevice), isinstance(args[0], OnDevice)
        across = sides if kind.copies else (True, True)
        if kind.waits or across == (True, False) or (kind.indexes and _by_mask(args)):
            counts.waits[f"{where} {kind.name}"] += 1
        if across == (False, True) or (kind.indexes and not all(isinstance(x, OnDevice) for x in tensors)):
            counts.transfers[f"{where} {kind.name}"] += 1


@dataclass(frozen=True)
class _Kind:
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
def _kind(func: Any) -> _Kind:
    name, overload = func._schema.name.partition("::")[2], func._schema.overload_name
    alias = func._schema.returns[0].alias_info if func._schema.returns else None
    view = alias is not None and not alias.is_write
    return _Kind(
        name,
        launches=not view and name not in _FREE,
        waits=name in _WAITS or (name, overload) == ("repeat_interleave", "Tensor"),
        copies=name in ("_to_copy", "copy_"),
        indexes=name in ("index", "index_put", "index_put_", "_index_put_impl_"),
        takes_scalars=torch.Tag.pointwise in func.tags or name.startswith(("index_fill", "fill", "masked_fill")),
        in_place=name.endswith("_"),
        reshapes_in_place=torch.Tag.inplace_view in func.tags,
    )


def _check_devices(kind: _Kind, args, tensors: list[torch.Tensor]) -> None:
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


class _Python(TorchFunctionMode):
    """Turns "cuda" into the stand-in before C++ sees it, and answers what C++ would refuse of any subclass."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _FROM_HOST:
            return _from_host(func, args, kwargs)
        if args and isinstance(args[0], OnDevice):
            if func is torch.Tensor.tolist:
                return args[0].cpu().tolist()
            if func in (torch.Tensor.numpy, torch.Tensor.__array__):
                raise TypeError(
                    f"can't convert {CUDA} device type tensor to numpy. "
                    "Use Tensor.cpu() to copy the tensor to host memory first."
                )
        if func is torch.Tensor.cuda:
            return args[0].to(_STAND_IN)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], OnDevice):
            args = (args[0], _indices(args[1], args[0]), *args[2:])
        if kwargs.get("generator") is not None:
            _check_generator(kwargs["generator"], kwargs.get("device"), args)
        if func in (torch.device, torch.get_device_module):
            return func(*args, **kwargs)
        args = [_STAND_IN if _is_cuda(x) else x for x in args]
        kwargs = {name: _STAND_IN if _is_cuda(x) else x for name, x in kwargs.items()}
        return func(*args, **kwargs)


class _AnyGenerator(type(torch.Generator)):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _Generator)


_Generator = torch.Generator


class OfDevice(_Generator, metaclass=_AnyGenerator):
    """torch.Generator(device): one of the CPU, which may say that it is one of cuda:0."""

    def __new__(cls, device: torch.device | str = "cpu"):
        made = super().__new__(cls)
        made.pretends = _is_cuda(device)
        return made

    @property
    def device(self) -> torch.device:
        return CUDA if self.pretends else torch.device("cpu")


@contextmanager
def pretend_cuda() -> Iterator[Counts]:
    """Within, torch has one CUDA device; its tensors are not to be used after."""
    counts = Counts()

    def properties(device: Any = None) -> SimpleNamespace:
        major, minor = counts.capability
        return SimpleNamespace(name="a pretended GPU", major=major, minor=minor, total_memory=80 * 2**30)

    cuda = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
        "get_device_name": lambda device=None: properties().name,
        "get_device_properties": properties,
        "get_device_capability": lambda device=None: counts.capability,
        "mem_get_info": lambda device=None: (2**33, 2**33),
    }
    with patch.multiple(torch.cuda, **cuda), patch.object(torch, "Generator", OfDevice), _Python(), _Device(counts):
        yield counts


def _tensors(inputs: Iterable[Any]) -> list[torch.Tensor]:
    """Those among the inputs of an operation, where they may stand in lists."""
    found = []
    for x in inputs:
        if isinstance(x, torch.Tensor):
            found.append(x)
        elif isinstance(x, list):
            found += [part for part in x if isinstance(part, torch.Tensor)]
    return found


def _each(change: Callable[[Any], Any], x: Any) -> Any:
    """The same with `change` applied to whatever is no list or tuple."""
    if not isinstance(x, list | tuple):
        return change(x)
    parts = [_each(change, part) for part in x]
    return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)


def _held(x: Any) -> Any:
    if isinstance(x, OnDevice):
        return x.held
    return torch.device("cpu") if isinstance(x, torch.device) else x


def _is_cuda(x: Any) -> bool:
    return (isinstance(x, torch.device) and x.type == "cuda") or (isinstance(x, str) and x.startswith("cuda"))


def _from_host(func, args, kwargs):
    """Data that Python holds: made on the CPU, then moved, where the device is asked for."""
    if isinstance(args[0], OnDevice) and func is not torch.Tensor.new_tensor:
        return func(*args, **kwargs)
    here = _is_cuda(kwargs.get("device"))
    if func is torch.Tensor.new_tensor:
        here = here or ("device" not in kwargs and isinstance(args[0], OnDevice))
        kwargs = {"dtype": args[0].dtype} | kwargs
        func, args = torch.tensor, args[1:]
    made = func(*args, **{name: x for name, x in kwargs.items() if name != "device"})
    return made.to(_STAND_IN) if here else made


def _indices(index: Any, x: OnDevice) -> Any:
    """Lists among the indices as tensors of the device, as torch makes them of lists."""
    if isinstance(index, tuple):
        return tuple(_indices(part, x) for part in index)
    return torch.tensor(index).to(_STAND_IN) if isinstance(index, list) else index


def _check_generator(generator: torch.Generator, device: Any, args) -> None:
    here = isinstance(args[0], OnDevice) if device is None else _is_cuda(device)
    wanted = "cuda" if here else "cpu"
    if generator.device.type != wanted:
        raise RuntimeError(f"Expected a '{wanted}' device type for generator but found '{generator.device.type}'")


def _by_mask(args) -> bool:
    """Whether tensors index by a mask: its entries must be counted first, unless one value goes to all of them."""
    if not isinstance(args[1], list | tuple):
        return False
    masks = [x for x in args[1] if isinstance(x, torch.Tensor) and x.dtype in (torch.bool, torch.uint8)]
    one = len(args) > 2 and args[2].numel() == 1 and len(args[1]) == 1
    return bool(masks) and not one


def _line() -> str:
    """The innermost line of the package, or of who uses it, that is at work."""
    frame: FrameType | None = sys._getframe(3)
    while frame is not None:
        place = _place(frame.f_code)
        if place:
            return f"{place}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


@cache
def _place(code: CodeType) -> str:
    """Folder and file of what counts as at work, else nothing."""
    name = code.co_filename
    return "/".join(name.split("/")[-2:]) if any(place in name for place in _PLACES) else ""
