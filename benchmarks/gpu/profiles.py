"""What 64 steps of each loop spend their time on: no more, for the profile of a whole walk would fill the memory."""

from collections.abc import Callable, Iterator

import torch
from torch.profiler import ProfilerActivity, profile

from attention_coresets import Coreset, make_cache
from attention_coresets.adversary.ascent import climb
from attention_coresets.compiled import backend
from attention_coresets.coresets.balancing.kernel_halving import kernel_halving_signs
from attention_coresets.coresets.walks.walk import BLOCK, FREEZE
from attention_coresets.coresets.walks.walk_loop import WalkLoop
from benchmarks.gpu.journal import Found
from benchmarks.kernel import gram

STEPS = 64
SIZES = {"smoke": (2, 96), "full": (8, 4096)}  # heads, n
_LINES = 12  # of the profile that are kept


def measure(tier: str, device: str) -> Iterator[Found]:
    """A note for the walk, for halving and for the ascent: its largest entries."""
    heads, n = SIZES[tier]
    for name, work in (("walk", walk), ("halving", halving), ("ascent", ascent)):
        yield f"{STEPS} steps of {name}, {heads} × {n}:\n{profiled(work(heads, n, device))}"


def walk(heads: int, n: int, device: str) -> Callable[[], object]:
    """64 moves of a walk whose inverse is there already."""
    x = torch.zeros(heads, n, dtype=torch.float64, device=device)
    uniforms = torch.rand(heads, STEPS, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(device)
    place = torch.arange(n, device=device).expand(heads, n)
    loop = WalkLoop(gram(n, heads, device), x, place, 1e-4, True, BLOCK, FREEZE)
    return lambda: loop.run(uniforms)


def halving(heads: int, n: int, device: str) -> Callable[[], object]:
    """64 pairs."""
    size = min(n, 2 * STEPS)
    matrices, x = gram(size, heads, device), torch.zeros(heads, size, dtype=torch.float64, device=device)
    uniforms = torch.rand(heads, size, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).to(device)
    return lambda: kernel_halving_signs(matrices, x, uniforms)


def ascent(heads: int, n: int, device: str) -> Callable[[], object]:
    """64 steps of 64 climbs in float32."""
    cache = make_cache("sphere", n=n, d=16, heads=heads, dtype=torch.float32, device=device)
    coreset = Coreset(torch.arange(0, n, 8, device=device).repeat(heads, 1))
    first = torch.randn(heads, 64, 16, generator=torch.Generator().manual_seed(0)).to(device)
    return lambda: climb(cache, coreset, 2.0, first, STEPS)


def profiled(work: Callable[[], object]) -> str:
    """The largest entries of one run, as torch.profiler prints them."""
    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with backend("torch"), profile(activities=activities) as found:  # a GPU's loops, on the CPU too
        work()
        if on_gpu:
            torch.cuda.synchronize()
    key = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    return found.key_averages().table(sort_by=key, row_limit=_LINES, max_name_column_width=40)
