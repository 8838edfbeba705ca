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

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from pretend_counts import Counts, line_at_work
from pretend_graphs import Graph, captured, run
from pretend_operations import CUDA, STAND_IN, Kind, OnDevice, by_mask, check_devices, kind_of, tensors_among

_FROM_HOST = {torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor}  # data of the host, by C++ alone


class _Device(TorchDispatchMode):
    """Runs each operation of torch that has a tensor of the device, or makes one."""

    _should_skip_dynamo = classmethod(lambda cls: False)  # nothing is compiled: spares a call an operation

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts
        self.graph: Graph | None = None  # that is being captured

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        here, asked = OnDevice in types, kwargs.get("device")
        made_here = here if asked is None else asked == STAND_IN
        if not (here or made_here):
            return func(*args, **kwargs)
        kind, tensors = kind_of(func), tensors_among((*args, *kwargs.values()))
        check_devices(kind, args, tensors)
        self._count(kind, args, tensors, (here, made_here))
        wrapped = {id(x.held): x for x in tensors if isinstance(x, OnDevice)}
        held = func, _each(_held, args), {name: _each(_held, x) for name, x in kwargs.items()}
        out = run(*held) if self.graph is None else self.graph.capture(*held)
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

    def _count(self, kind: Kind, args, tensors: list[torch.Tensor], sides: tuple[bool, bool]) -> None:
        where, counts = line_at_work(), self.counts
        if kind.launches and self.graph is None:
            counts.launches[where] += 1
        if kind.name == "copy_":
            sides = isinstance(args[1], OnDevice), isinstance(args[0], OnDevice)
        across = sides if kind.copies else (True, True)
        waits = kind.waits or across == (True, False) or (kind.indexes and by_mask(args))
        brings = across == (False, True) or (kind.indexes and not all(isinstance(x, OnDevice) for x in tensors))
        if self.graph is not None and (waits or brings):
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing: {kind.name}")
        counts.waits.update([f"{where} {kind.name}"] * waits)
        counts.transfers.update([f"{where} {kind.name}"] * brings)


class _Python(TorchFunctionMode):
    """Turns "cuda" into the stand-in before C++ sees it, and answers what C++ would refuse of any subclass."""

    def __init__(self, device: _Device) -> None:
        super().__init__()
        self.device = device

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
            return args[0].to(STAND_IN)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], OnDevice):
            args = (args[0], _indices(args[1], args[0]), *args[2:])
        if kwargs.get("generator") is not None:
            if self.device.graph is not None:
                raise RuntimeError("CUDA error: a generator was used when stream is capturing")
            _check_generator(kwargs["generator"], kwargs.get("device"), args)
        if func in (torch.device, torch.get_device_module):
            return func(*args, **kwargs)
        args = [STAND_IN if _is_cuda(x) else x for x in args]
        kwargs = {name: STAND_IN if _is_cuda(x) else x for name, x in kwargs.items()}
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
    device = _Device(counts)

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
        "memory_allocated": lambda device=None: 0,
        "memory_reserved": lambda device=None: 0,
        "device": nullcontext,
        "Stream": type("Stream", (), {}),
        "current_stream": lambda: None,
        "stream": nullcontext,
        "CUDAGraph": type("CUDAGraph", (Graph,), {"counts": counts}),
        "graph": partial(captured, device),
    }
    with patch.multiple(torch.cuda, **cuda), patch.object(torch, "Generator", OfDevice), _Python(device), device:
        yield counts


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
    return made.to(STAND_IN) if here else made


def _indices(index: Any, x: OnDevice) -> Any:
    """Lists among the indices as tensors of the device, as torch makes them of lists."""
    if isinstance(index, tuple):
        return tuple(_indices(part, x) for part in index)
    return torch.tensor(index).to(STAND_IN) if isinstance(index, list) else index


def _check_generator(generator: torch.Generator, device: Any, args) -> None:
    here = isinstance(args[0], OnDevice) if device is None else _is_cuda(device)
    wanted = "cuda" if here else "cpu"
    if generator.device.type != wanted:
        raise RuntimeError(f"Expected a '{wanted}' device type for generator but found '{generator.device.type}'")
