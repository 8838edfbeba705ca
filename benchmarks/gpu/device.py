"""What the device is, what is installed beside it, which loops run, and the rates that all else is read against."""

import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import torch

from attention_coresets.compiled import NUMBA_MISSING, triton_fault
from attention_coresets.devices import drawn_on_cpu
from benchmarks.gpu.journal import Found
from benchmarks.gpu.measuring import in_turn
from benchmarks.limits import cholesky_and_inverse, matrix_product
from benchmarks.records import LIMIT, ratio
from benchmarks.timing import once

SIZE = {"smoke": 64, "full": 8192}
BUDGET = {"smoke": 0.1, "full": 4.0}
PACKAGES = ("triton", "transformers", "numpy", "pandas", "numba", "jaxtyping", "beartype", "hydra-core", "goodpoints")


def measure(tier: str, device: str) -> Iterator[Found]:
    """Notes, then the rates of matrix products in float64 and float32 and of a Cholesky factor with inverse."""
    yield f"device: {_name(device)}"
    yield f"torch {torch.__version__}, " + ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    yield f"loops on the CPU: {'numba' if NUMBA_MISSING is None else f'torch, numba is missing ({NUMBA_MISSING})'}"
    if device != "cpu":
        fault = triton_fault(device)
        yield f"loops on {device}: {'Triton' if fault is None else f'torch, Triton does not run ({fault})'}"
    yield _cuda_generator(device)
    n = SIZE[tier]
    tasks = {
        "matrix product, float32": matrix_product(n, torch.float32, device),
        "matrix product, float64": matrix_product(n, torch.float64, device),
        "Cholesky + inverse, float64": cholesky_and_inverse(n, device),
    }
    for task in tasks.values():
        once(task)
    runs = in_turn(tasks, BUDGET[tier])
    for name, run in runs.items():
        yield run.row(name, n, LIMIT, operations=n**3 if name.startswith("Cholesky") else 2 * n**3)
    single, double = (runs[f"matrix product, {dtype}"].seconds for dtype in ("float32", "float64"))
    yield ratio("rate of float64 over that of float32 (walks and certificates need float64)", single, double)


def _name(device: str) -> str:
    if device == "cpu":
        return "the CPU"
    found = torch.cuda.get_device_properties(0)
    return (
        f"{found.name}, {found.total_memory / 2**30:.0f} GiB, {found.multi_processor_count} multiprocessors, "
        f"compute capability {found.major}.{found.minor}, CUDA {torch.version.cuda}"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _cuda_generator(device: str) -> str:
    """What a caller hears who passes a generator of the device, where all random numbers are drawn on the CPU."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        drawn_on_cpu(torch.Generator(device))
    return f"a generator on {device}: {said[0].message if said else 'taken'}"
