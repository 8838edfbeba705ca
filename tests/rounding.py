"""Other rounding on any processor: a mode in which torch's sums, products and factors come out a little otherwise.

Which of two roundings a processor takes depends on its kernels, on the batch, on the number of threads and on where a
slice begins in memory. A test that passes here may so fail elsewhere. `OtherRounding` shows such a test at home: it
adds to each result an error of the size that rounding may have, drawn anew at every call. What is exact on every
processor stays exact: sums and products of whole numbers, products with one term, sums of two, zeros and ones.

Compiled loops (numba) and NumPy are left as they are: on one machine they give the same for the same numbers, and their
input comes from torch. Tests that run under this mode have the mark `rounding`; `pytest --other-rounding SEED` runs
every test so.
"""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

LEVEL = 1e-15  # relative, in float64; as many units in the last place in other dtypes

_ENTRIES = (
    *("exp", "expm1", "log", "log1p", "_softmax", "_log_softmax", "logsumexp", "linalg_vector_norm", "prod", "cumsum"),
    *("logcumsumexp", "linalg_cholesky_ex", "linalg_inv_ex", "_linalg_solve_ex", "linalg_solve_triangular"),
    *("triangular_solve", "cholesky_inverse", "cholesky_solve", "linalg_qr", "_linalg_eigh", "_linalg_svd"),
    *("linalg_lstsq", "linalg_lu_factor_ex", "linalg_lu_solve", "lu_unpack", "linalg_ldl_factor_ex", "_cdist_forward"),
)
_PRODUCTS = {  # where the two factors stand among the arguments
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "inner"), 0),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv", "addr"), 1),
}
_SUMS = ("sum", "mean")


class OtherRounding(TorchDispatchMode):
    """While it is entered, torch's results on the CPU carry other rounding errors, drawn from `generator`."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator
        self.perturbed = 0  # results changed so far

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.rstrip("_") if not func.overloadpacket.__name__.startswith("__") else ""
        found = func(*args, **kwargs)
        if name in _PRODUCTS:
            self._add(found, _product_scale(found, *args[_PRODUCTS[name] :][:2]))
        elif name in _SUMS:
            self._add(found, _sum_scale(func, found, args, kwargs))
        elif name in _ENTRIES:
            for part in (found,) if isinstance(found, Tensor) else found:
                if isinstance(part, Tensor) and part.is_floating_point():
                    self._add(part, torch.where((part == 0) | (part.abs() == 1), 0.0, part.abs()))
        return found

    def _add(self, found: Tensor, scale: Tensor | None) -> None:
        """Add to each number of `found` at most LEVEL of `scale`."""
        if scale is None or not found.is_floating_point() or found.device.type != "cpu":
            return
        level = LEVEL * torch.finfo(found.dtype).eps / torch.finfo(torch.float64).eps
        noise = torch.empty(found.shape, dtype=torch.float64).uniform_(-level, level, generator=self.generator)
        found.add_((noise * torch.where(scale.isfinite(), scale, 0.0)).to(found.dtype))
        self.perturbed += 1


def _product_scale(found: Tensor, a: Tensor, b: Tensor) -> Tensor | None:
    """|a| @ |b| and what was added to it, 0 where at most one term of the inner product is there."""
    if _whole(a) and _whole(b):
        return None
    if found.dim() == 2 and a.dim() == b.dim() == 1:  # addr: an outer product
        return found.abs()
    if a.dim() == 3 and found.dim() == 2:  # addbmm
        return found.abs() + (a.abs() @ b.abs()).sum(0)
    size = a.abs().to(torch.float64) @ b.abs().to(torch.float64) + found.abs()
    if a.shape[-1] > 1 and bool(a.all()) and bool(b.all()):
        return size
    terms = (a != 0).to(torch.float64) @ (b != 0).to(torch.float64)
    return torch.where(terms > 1, size, 0.0)


def _sum_scale(func, found: Tensor, args, kwargs) -> Tensor | None:
    """The sum (or mean) of |x|; nothing where all terms are whole numbers, or there are at most two."""
    x = args[0]
    if not (x.is_floating_point() and found.is_floating_point()) or _whole(x) or x.numel() <= 2 * found.numel():
        return None
    if "out" in kwargs:
        kwargs = {**kwargs, "out": torch.empty_like(found)}
    return func(x.abs(), *args[1:], **kwargs)


def _whole(x: Tensor) -> bool:
    return bool((x == x.round()).all())


def everywhere(generator: torch.Generator):
    """A `ThreadPoolExecutor.submit` whose threads work under OtherRounding too: modes belong to one thread."""
    submit = ThreadPoolExecutor.submit

    def submit_rounded(pool, work, /, *args, **kwargs):
        def rounded(*inner, **named):
            with OtherRounding(generator):
                return work(*inner, **named)

        return submit(pool, rounded, *args, **kwargs)

    return submit_rounded
