"""Writes and reads a captured layer: a safetensors file with provenance and a checksum, there whole or not at all."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from attention_coresets.files import replacing

TENSORS = ("keys", "values", "queries", "calibration", "moved")


def save(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> None:
    """Writes tensors and metadata; ValueError for NaN or Inf, OSError with the remedy where the disk refuses."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            where = f"{meta['model']} layer {meta['layer']}"
            raise ValueError(f"{where}: {name} hold NaN or Inf; nothing is kept of this layer")
    try:
        with replacing(path) as part:
            save_file(tensors, part, metadata={**meta, "sha256": checksum(tensors, meta)})
    except (OSError, SafetensorError) as error:
        remedy = "free space, or set ATTENTION_CORESETS_CAPTURES to another directory"
        raise OSError(f"cannot write capture {path}: {error}; {remedy}") from error


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads tensors and metadata of a captured layer; ValueError naming the file and the remedy where it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in TENSORS}
            meta = file.metadata() or {}
    except SafetensorError as error:
        raise unusable(path, str(error)) from error
    found = checksum(tensors, {name: value for name, value in meta.items() if name != "sha256"})
    if meta.get("sha256") != found:
        raise unusable(path, f"sha256 is {found}, not {meta.get('sha256')}")
    return tensors, meta


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the metadata alone, unverified; ValueError as `read_file` where the file cannot be opened."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise unusable(path, str(error)) from error


def unusable(path: Path, reason: str) -> ValueError:
    """Makes the one line that a damaged or mismatched capture is refused with."""
    reason = reason.replace("\n", " ")
    return ValueError(f"capture {path} is unusable: {reason}; delete the file and rerun scripts/capture.py")


def checksum(tensors: Mapping[str, Float[Tensor, "..."]], meta: Mapping[str, str]) -> str:
    """Computes sha256 over the tensors' names, shapes and bytes and over the metadata."""
    digest = hashlib.sha256(json.dumps(dict(sorted(meta.items()))).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
