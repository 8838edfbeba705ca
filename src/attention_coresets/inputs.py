"""Takes inputs as people have them: every public function passes what it is given through here.

`tensor` and `whole_numbers` take tensors or NumPy arrays. `promoted` and `least_float32` are the one place that chooses
the dtype of a computation: never fewer than 32 bits, whatever the cache's. `exact_unit` keeps squares of values finite.
`generators_of` and `one_generator` take generators, seeds or nothing.
"""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.checks import whole
from attention_coresets.devices import drawn_on_cpu

Generators = torch.Generator | Sequence[torch.Generator]
Seeds = Generators | int | Sequence[int] | None  # what people pass for generators
Array = Tensor | np.ndarray
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_CALM = 16  # values between 2^-16 and 2^16 have fourth powers, as squared slopes are, far from the ends of float32
_LARGEST_KEY = 1e15  # squares of keys stay finite in float32


def tensor(name: str, x: Array) -> Tensor:
    """Returns a tensor as it is, and a NumPy array as a copy; ValueError, in words, for anything else."""
    if isinstance(x, Tensor):
        if x.layout != torch.strided:
            raise ValueError(f"{name} must be a dense tensor, got layout {x.layout}; call .to_dense() first")
        return x
    if isinstance(x, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array, and a mask would be ignored; fill it, or drop what is masked")
    if not isinstance(x, np.ndarray):
        raise ValueError(f"{name} must be a tensor or a NumPy array, got {type(x).__name__}")
    if x.dtype.kind not in "fiub" or x.dtype.itemsize > 8:
        raise ValueError(f"{name} must hold numbers of at most 64 bits, got {x.dtype}; convert by .astype('float64')")
    return torch.from_numpy(np.array(x, dtype=x.dtype.newbyteorder("="), order="C", subok=False))


def whole_numbers(name: str, x: Array) -> Int[Tensor, "..."]:
    """Returns whole numbers as int64; ValueError for others."""
    x = tensor(name, x)
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise ValueError(f"{name} must be whole numbers, got {x.dtype}; convert by .long()")
    return x.to(torch.int64)


def least_float32(*dtypes: torch.dtype) -> torch.dtype:
    """Returns the dtype that computes with all of these: the widest, and float32 at least."""
    return reduce(torch.promote_types, dtypes, torch.float32)


def promoted(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Returns all in `least_float32` of their dtypes."""
    dtype = least_float32(*(x.dtype for x in tensors))
    return tuple(x.to(dtype) for x in tensors)


def check_finite(**tensors: Tensor) -> None:
    """Raises ValueError for NaN or Inf."""
    for name, x in tensors.items():
        if not bool(x.isfinite().all()):
            raise ValueError(f"{name} hold NaN or Inf")


def check_key_size(keys: Float[Tensor, "*heads n d"]) -> None:
    """Raises ValueError for keys whose squares would overflow."""
    largest = float(keys.detach().abs().max())
    if largest > _LARGEST_KEY:
        raise ValueError(
            f"keys reach {largest:.0e}, above the {_LARGEST_KEY:.0e} whose squares can be summed; divide keys by a "
            "constant, and multiply queries and rho by it"
        )


def exact_unit(values: Float[Tensor, "*heads n dv"]) -> Float[Tensor, "*heads 1 1"]:
    """Returns the power of 2 to divide values by, so that no sum of their squares overflows or vanishes: mostly 1.

    A division by it loses nothing, so that values of 1e200 or 1e-200 are worked on as others are.
    """
    largest = values.detach().abs().amax(dim=(-2, -1), keepdim=True)
    exponent = torch.frexp(largest).exponent - 1
    extreme = (largest > 0) & (exponent.abs() > _CALM)
    return torch.full_like(largest, 2.0).pow(torch.where(extreme, exponent, 0))


def generators_of(seeds: Seeds) -> Generators:
    """Returns generators of the CPU as they are, one seeded by an int, and for None a fresh one, other in every call.

    One of another device draws the seed of a new one (`drawn_on_cpu`).

    Raises ValueError for anything else.
    """
    if isinstance(seeds, list | tuple):
        return [_generator(seed) for seed in seeds]
    return _generator(seeds)


def one_generator(seed: torch.Generator | int | None) -> torch.Generator:
    """Returns a generator as it is, one seeded by an int, and for None one of seed 0; ValueError for anything else."""
    return _generator(0 if seed is None else seed)


def integer(generator: torch.Generator) -> int:
    """Draws a whole number below 2^62."""
    return int(torch.randint(2**62, (), generator=generator))


def _generator(seed: object) -> torch.Generator:
    if isinstance(seed, torch.Generator):
        return drawn_on_cpu(seed)
    generator = torch.Generator(device="cpu")
    if seed is None:
        generator.seed()
        return generator
    number = whole("generator must be a torch.Generator, a list of them, None or a seed, which", seed)
    if not 0 <= number < 2**64:
        raise ValueError(f"a seed given as generator must lie in 0..2^64 - 1, got {number}")
    return generator.manual_seed(number)
