"""The kernel problem that walks and halvings share with their peers: points, their Gaussian Gram matrix, distances."""

import math

import numpy as np
import torch
from torch import Tensor

LENGTH = 2.0  # kappa(x, y) = exp(-|x - y|^2 / LENGTH), which is exp(<x, y> - 1) on the unit sphere
DIMENSION = 16


def points(n: int, heads: int = 1, seed: int = 0) -> Tensor:
    """Points uniform on the unit sphere, ``[heads, n, d]``, float64 on the CPU: |x - y|^2 is about 2."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(heads, n, DIMENSION, dtype=torch.float64, generator=generator)
    return x / x.norm(dim=-1, keepdim=True)


def gram(n: int, heads: int = 1, device: str = "cpu") -> Tensor:
    """Gaussian Gram matrices of `points`, ``[heads, n, n]``, float64."""
    x = points(n, heads).to(device)
    lengths = x.square().sum(-1)
    inner = (x @ x.mT).mul_(2).sub_(lengths.unsqueeze(-1)).sub_(lengths.unsqueeze(-2))
    return inner.div_(LENGTH).clamp_max_(0).exp_()


def gaussian(x: np.ndarray) -> np.ndarray:
    """The same kernel in NumPy, ``[n, n]``."""
    lengths = np.square(x).sum(1)
    return _values(x, lengths, x, lengths)


def distance(x: np.ndarray, kept: np.ndarray, means: np.ndarray | None = None) -> float:
    """|mean feature of all points - mean feature of those kept| in the kernel's Hilbert space.

    With `means` of the points it takes O(m^2) kernel values, not O(n^2): ask for them once where many sets are judged.
    """
    means = kernel_means(x) if means is None else means
    square = means.mean() - 2 * means[kept].mean() + kernel_means(x[kept]).mean()
    return math.sqrt(max(float(square), 0.0))


def kernel_means(x: np.ndarray, rows: int = 4096) -> np.ndarray:
    """The mean over all points of the kernel with each, ``[n]``: O(n^2) kernel values, O(rows n) memory."""
    lengths = np.square(x).sum(1)
    means = np.empty(len(x))
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        means[part] = _values(x[part], lengths[part], x, lengths).mean(1)
    return means


def _values(x: np.ndarray, x_lengths: np.ndarray, y: np.ndarray, y_lengths: np.ndarray) -> np.ndarray:
    return np.exp(np.minimum(2 * x @ y.T - x_lengths[:, None] - y_lengths, 0) / LENGTH)
