"""Finds the loops that numba compiles for the CPU and Triton for a GPU, and says in one line where they are missed.

`compiled_module` gives a module that needs numba. `runs_compiled` says whether its loop runs on a tensor, or torch's in
its place. `triton_kernels` gives a module of Triton kernels where they run on a tensor. Where one of the two is wanted
and cannot be had, the first such loop of a process warns, and no other. A process that works on a GPU alone hears
nothing of numba.
"""

import atexit
import importlib
import os
import shutil
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor

from attention_coresets.registry import check_name

T = TypeVar("T")


class SlowLoopWarning(RuntimeWarning):
    """A loop ran in torch because numba cannot be imported, or because Triton does not run on the GPU."""


def _missing() -> str | None:
    """Says why numba cannot be imported, None where it can."""
    try:
        importlib.import_module("numba")
    except ImportError as error:  # not installed, or of a version that refuses this NumPy or Python
        return " ".join(str(error).split()) or type(error).__name__
    return None


NUMBA_MISSING = _missing()
BACKENDS = ("auto", "torch", "triton")
_backend = "auto"
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # what Triton itself goes by
_LOCK = threading.Lock()  # loops run side by side in threads
_runs: Counter[str] = Counter()
_said: set[str] = set()


def compiled_module(name: str) -> ModuleType | None:
    """Returns the module of that name, which needs numba; None where numba cannot be imported.

    Where numba has nowhere to keep what it compiles, for neither the package nor the user's home can be written to, it
    gets a folder that goes with the process. Any other failure is raised.
    """
    if NUMBA_MISSING:
        return None
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
    _cache_for_this_process()
    return importlib.import_module(name)


def _cache_for_this_process() -> None:
    folder = tempfile.mkdtemp(prefix="attention-coresets-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # the variable too: numba reads it again whenever the environment has changed
    os.environ["NUMBA_CACHE_DIR"] = importlib.import_module("numba").config.CACHE_DIR = folder


def runs_compiled(loop: T | None, x: Tensor) -> TypeGuard[T]:
    """Tells whether `loop`, compiled for the CPU, runs on `x`. Ask right before it does: this call counts loops.

    False on another device, within `backend("torch")`, and where there is no such loop. Warns SlowLoopWarning, once a
    process, where numba is to blame.
    """
    if x.device.type != "cpu" or _backend == "torch":
        return False
    if loop is None:
        if NUMBA_MISSING is not None:
            reason, remedy = f"numba cannot be imported ({NUMBA_MISSING})", 'pip install "attention-coresets[fast]"'
            _say_once(f"{reason}: loops on the CPU run in torch, to the same results but slower; {remedy}")
        return False
    with _LOCK:
        _runs["numba"] += 1
    return True


def triton_kernels(name: str, x: Tensor) -> ModuleType | None:
    """Returns the module of Triton kernels of that name where they run on `x`, None where torch's or numba's loops do.

    They run in float64 on a CUDA device, unless within `backend("torch")`. Where TRITON_INTERPRET=1 has them
    interpreted, they run on any device, but within `backend("triton")` alone. Ask right before they run: this call
    counts loops. Warns SlowLoopWarning, once a process, where Triton does not run on the GPU.
    """
    wanted = _backend == "triton" if _INTERPRETED else _backend != "torch" and x.is_cuda
    if not wanted or x.dtype != torch.float64:
        return None
    if fault := triton_fault(str(x.device)):
        reason = f"Triton does not run on {x.device} ({fault})"
        _say_once(f"{reason}: its loops run in torch, to the same results but slower")
        return None
    with _LOCK:
        _runs["triton"] += 1
    return importlib.import_module(name)


@cache
def triton_fault(device: str) -> str | None:
    """Says why the smallest Triton kernel does not run on `device`, None where it does; tried once a process."""
    try:
        importlib.import_module("attention_coresets.triton_trial").run(device)
    except Exception as error:  # not installed, no C compiler for its launcher, no driver, an unknown GPU
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Chooses what runs the loops within the context, in all threads of the process.

    Parameters
    ----------
    name : str
        "auto", numba on the CPU and Triton on a GPU where they are there, as usual. "torch", which gives the same
        results, slower. "triton", as "auto", and its kernels on the CPU too where TRITON_INTERPRET=1 was set before the
        process began: for tests.

    Raises
    ------
    ValueError
        For another name.
    """
    global _backend
    check_name(name, BACKENDS, "backend")
    before, _backend = _backend, name
    try:
        yield
    finally:
        _backend = before


def compiled_runs() -> Counter[str]:
    """Returns how many loops of "numba" and of "triton" any thread of this process has begun.

    A loop ran meanwhile where a number has grown.
    """
    with _LOCK:
        return _runs.copy()


def _say_once(line: str) -> None:
    with _LOCK:
        if line in _said:
            return
        warnings.warn(line, SlowLoopWarning, stacklevel=3)
        _said.add(line)
