"""Finds the loops that numba compiles, and says in one line where they are missed.

`compiled_module` gives a module that needs numba. `runs_compiled` says whether its loop runs on a tensor, or torch's in
its place. Where that is for want of numba, the first such loop of a process warns, and no other. A process that works
on a GPU alone hears nothing.
"""

import atexit
import importlib
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TypeGuard, TypeVar

from torch import Tensor

from attention_coresets.registry import check_name

T = TypeVar("T")


class SlowLoopWarning(RuntimeWarning):
    """A loop ran in torch on the CPU because numba cannot be imported."""


def _missing() -> str | None:
    """Says why numba cannot be imported, None where it can."""
    try:
        importlib.import_module("numba")
    except ImportError as error:  # not installed, or of a version that refuses this NumPy or Python
        return " ".join(str(error).split()) or type(error).__name__
    return None


NUMBA_MISSING = _missing()
BACKENDS = ("auto", "torch")
_backend = "auto"
_LOCK = threading.Lock()  # loops run side by side in threads
_runs, _said = 0, False


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
        _say_once()
        return False
    global _runs
    with _LOCK:
        _runs += 1
    return True


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Chooses what runs the loops on the CPU within the context, in all threads of the process.

    Parameters
    ----------
    name : str
        "auto", numba where it is there, as usual; or "torch", which gives the same results, slower.

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


def compiled_runs() -> int:
    """Returns how many compiled loops any thread of this process has begun.

    A loop ran meanwhile where the number has grown.
    """
    return _runs


def _say_once() -> None:
    global _said
    if NUMBA_MISSING is None:
        return
    with _LOCK:
        if _said:
            return
        warnings.warn(
            f"numba cannot be imported ({NUMBA_MISSING}): loops on the CPU run in torch, to the same results but"
            ' slower; pip install "attention-coresets[fast]"',
            SlowLoopWarning,
            stacklevel=3,
        )
        _said = True
