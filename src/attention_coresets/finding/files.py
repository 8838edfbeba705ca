"""Reads a cache from a file of its own user, and writes the coreset found of it."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from attention_coresets.attention import Cache
from attention_coresets.files import replacing
from attention_coresets.finding.find import Found
from attention_coresets.inputs import Array, tensor

KINDS = (".npy", ".npz", ".safetensors")


def read_cache(path: Path) -> Cache:
    """Reads keys and values, each ``[*heads, n, d]``.

    .npz and .safetensors hold them by these names; values may have another last axis. .npy holds both stacked, ``[2,
    *heads, n, d]``, keys first.

    Raises ValueError, in one line, for another kind of file, one that is damaged or holds no such arrays, shapes that
    do not match, and NaN; OSError where it cannot be read.
    """
    if path.suffix not in KINDS:
        raise ValueError(f"{path}: a cache is read from {', '.join(KINDS)}, not from {path.suffix or 'a file without'}")
    try:
        arrays = _stacked(path) if path.suffix == ".npy" else _named(path)
        keys, values = (tensor(name, x) for name, x in zip(("keys", "values"), arrays, strict=True))
        if not (keys.is_floating_point() and values.is_floating_point()):
            raise ValueError(f"keys and values must be floating numbers, got {keys.dtype} and {values.dtype}")
        return Cache(keys, values)
    except ValueError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error


def write_found(path: Path, found: Found, about: Mapping[str, str]) -> None:
    """Writes indices ``[heads, m]`` (int64) and log_weights ``[heads, m]`` (float32) with metadata, all or nothing."""
    from safetensors.torch import save_file

    coreset = found.coreset.flat()
    assert coreset.log_weights is not None, "float32, of whatever was found"
    tensors = {"indices": coreset.indices, "log_weights": coreset.log_weights}
    meta = {
        "construction": found.construction,
        "certificate": repr(float(found.certificate.max())),
        "error_found": repr(float(found.error.max())),
    }
    with replacing(path) as part:
        save_file({name: x.cpu().contiguous() for name, x in tensors.items()}, part, metadata={**about, **meta})


def _stacked(path: Path) -> tuple[Array, Array]:
    both = np.load(path, allow_pickle=False)
    if both.ndim < 3 or len(both) != 2:
        raise ValueError(f"one array is taken for keys and values stacked, [2, *heads, n, d], and this is {both.shape}")
    return both[0], both[1]


def _named(path: Path) -> tuple[Array, Array]:
    held = _npz(path) if path.suffix == ".npz" else _safetensors(path)
    if missing := [name for name in ("keys", "values") if name not in held]:
        raise ValueError(f"no {' and no '.join(missing)} in it; it holds {', '.join(sorted(held)) or 'nothing'}")
    return held["keys"], held["values"]


def _npz(path: Path) -> Mapping[str, Array]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except zipfile.BadZipFile as error:
        raise ValueError(f"no .npz file, or a damaged one ({error})") from error


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"no safetensors file, or a damaged one ({error})") from error
