"""Triton's kernels keep the CPU's tokens: interpreted on the CPU, compiled on a GPU by -m gpu. They compile for H100s.

An interpreted step takes 30 ms, so that sizes are small here, and most families are slow tests.
"""

import os
import subprocess
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch

from attention_coresets import Cache, compiled, make_coreset
from attention_coresets.compiled import backend, compiled_runs
from attention_coresets.coresets.balancing.greedy import _GreedySign
from attention_coresets.coresets.balancing.kernel_halving import _KernelHalving
from attention_coresets.coresets.balancing.self_balancing_walk import _SelfBalancing
from attention_coresets.coresets.kernel.law import balancing_gram, law
from attention_coresets.coresets.walks.pairs import pair_signs
from attention_coresets.coresets.walks.walk import walk_signs
from attention_coresets.devices import at_once
from attention_coresets.study.provenance import fast_path
from benchmarks.gpu import predicted
from pretend_cuda import pretend_cuda
from tables import FAMILIES, generators, small_cache

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton, which requirements.txt has")
RHO, FAST = 2.0, ("sphere", "equal_keys")
SHARED = [family if family in FAST else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES]
RULES = {
    "kernel_halving": lambda: _KernelHalving(6.0),
    "greedy": _GreedySign,
    "self_balancing": lambda: _SelfBalancing(0.7),
}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """On a pretended GPU no kernel can run."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device here")
    return request.param


class OnGpu(torch.Tensor):
    """A tensor that only says where it is."""

    is_cuda, device = True, "cuda:0"


def gram_of(cache: Cache) -> torch.Tensor:
    base = torch.zeros(cache.keys.shape[:-1], dtype=torch.float64)
    return balancing_gram(cache.keys, cache.values, base, law(cache.keys, RHO, "tilted", "auto"))


def starts(heads: int, n: int, kind: str, seed: int) -> torch.Tensor:
    """x of a whole sum of the parity of n: all 0, anywhere, or with a third of the tokens at an end already."""
    x = torch.zeros(heads, n, dtype=torch.float64)
    if kind == "zero":
        return x
    x = torch.rand(heads, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 0.5
    if kind == "partly frozen":
        x[:, ::3] = 1.0
        x[1:, 1::3] = -1.0  # heads may differ in how many are alive
    alive = x.abs() < 1
    wanted = n + 2 * ((x.sum(-1) - n) / 2).round()
    return x + ((wanted - x.sum(-1)) / alive.sum(-1)).unsqueeze(-1) * alive


def uniforms(heads: int, n: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(heads, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_kernels_agree(device: str, work, *arrays: torch.Tensor) -> None:
    """`work(*arrays)` is the same on the CPU, in numba or torch, and in Triton on the device; and Triton did run."""
    expected = work(*(x.clone() for x in arrays))
    before = compiled_runs()
    with backend("triton"):
        found = work(*(x.to(device, copy=True) for x in arrays))
    assert fast_path(before) == "triton"
    assert found.device.type == device
    assert torch.equal(found.cpu(), expected)


@pytest.fixture
def small_tiles(monkeypatch) -> None:
    """16 numbers read at a time, so that small heads have several tiles."""
    for name in ("walk_triton", "pairs_triton"):
        kernels = import_module(f"attention_coresets.coresets.walks.{name}")
        for constant in ("_TILE", "_PER_WARP"):
            monkeypatch.setattr(kernels, constant, 16)


def walked(exact: bool, block: int):
    return lambda gram, x, u, place: walk_signs(gram, x, u, 1e-3, exact, block, place)


@pytest.mark.parametrize("family", SHARED)
def test_the_walk_on_every_family(device, family):
    cache = small_cache(family, n=30, heads=2)
    x, u = starts(2, cache.n, "zero", 0), uniforms(2, cache.n)
    assert_kernels_agree(device, walked(True, 8), gram_of(cache), x, u, uniforms(2, cache.n, 2).argsort(-1))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(("exact", "kind", "block"), [(True, "partly frozen", 5), (False, "anywhere", 32)])
def test_the_walk_from_any_start(device, exact, kind, block):
    """Blocks that end within a step, heads with fewer alive tokens than others, a size that is not fixed, two tiles."""
    gram, x = gram_of(small_cache("clusters", n=30, heads=2)), starts(2, 30, kind, 3)
    assert_kernels_agree(device, walked(exact, block), gram, x, uniforms(2, 30), uniforms(2, 30, 2).argsort(-1))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_larger_walks(device, family):
    """Three blocks of the usual length, the last two after columns were moved."""
    cache = small_cache(family, n=200, heads=1)
    order = uniforms(1, cache.n, 2).argsort(-1)
    arrays = gram_of(cache), starts(1, cache.n, "zero", 0), uniforms(1, cache.n), order
    assert_kernels_agree(device, walked(True, 96), *arrays)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("family", SHARED)
def test_pairs_on_every_family(device, family, rule):
    cache = small_cache(family, n=40, heads=2)
    arrays = gram_of(cache), starts(2, cache.n, "zero", 0), uniforms(2, cache.n)
    assert_kernels_agree(device, lambda *a: pair_signs(*a, RULES[rule]()), *arrays)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["anywhere", "partly frozen"])
def test_pairs_from_any_start(device, kind, rule):
    """Several rounds, two tiles; a Gram matrix in float32, which is read as it is."""
    gram, x = gram_of(small_cache("clusters", n=31, heads=2)).float(), starts(2, 31, kind, 4)
    assert_kernels_agree(device, lambda *a: pair_signs(*a, RULES[rule]()), gram, x, uniforms(2, 31))


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("family", FAMILIES)
def test_larger_halvings(device, family, rule):
    cache = small_cache(family, n=200, heads=2)
    arrays = gram_of(cache), starts(2, cache.n, "zero", 0), uniforms(2, cache.n)
    assert_kernels_agree(device, lambda *a: pair_signs(*a, RULES[rule]()), *arrays)


@pytest.mark.parametrize("name", ["walk_tilted", "kernel_halving"])
def test_constructions_run_them(device, name):
    cache, construct = small_cache("cap_outliers", n=20, heads=2), make_coreset(name)

    def indices(keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return construct(Cache(keys, values), 8, RHO, generators(1, 2)).indices

    assert_kernels_agree(device, indices, cache.keys, cache.values)


def test_a_walk_that_does_not_end_is_an_error(device, monkeypatch):
    """As numbers that are NaN would have it."""
    kernels = import_module("attention_coresets.coresets.walks.walk_triton")
    monkeypatch.setattr(kernels, "_steps", {(2,): lambda *arrays, **constants: None})
    gram = torch.eye(8, dtype=torch.float64, device=device).repeat(2, 1, 1)
    x = torch.zeros(2, 8, dtype=torch.float64, device=device)
    with backend("triton"), pytest.raises(RuntimeError, match="8 tokens are still fractional after 8 steps"):
        walk_signs(gram, x, x)


def test_where_triton_does_not_run_one_line_says_so(monkeypatch):
    """And torch's loop runs."""
    monkeypatch.setattr(compiled, "_INTERPRETED", False)
    monkeypatch.setattr(compiled, "_said", set())
    monkeypatch.setattr(compiled, "triton_fault", lambda device: f"{device} is too old")
    before, x = compiled_runs(), torch.zeros(1, dtype=torch.float64).as_subclass(OnGpu)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert [compiled.triton_kernels("any", x) for _ in range(3)] == [None] * 3
    (line,) = said
    assert line.category is compiled.SlowLoopWarning
    assert str(line.message).startswith("Triton does not run on cuda:0 (cuda:0 is too old): its loops run in torch")
    assert fast_path(before) == "torch"


def test_the_trial_says_what_is_wrong(monkeypatch):
    monkeypatch.setitem(sys.modules, "attention_coresets.triton_trial", None)
    compiled.triton_fault.cache_clear()
    assert "ModuleNotFoundError: import of attention_coresets.triton_trial halted" in compiled.triton_fault("cpu")
    compiled.triton_fault.cache_clear()


@pytest.mark.parametrize("n", [64, 200, 960])
def test_predicted_launches(monkeypatch, n):
    """Of the host's part, on a pretended GPU; the kernels themselves are left out, and so the walk does not end."""
    kernels = []

    class Counted:
        def __getitem__(self, grid):
            return lambda *arrays, **constants: kernels.append(grid)

    for name, kernel in (("walk_triton", "_steps"), ("pairs_triton", "_walk")):
        monkeypatch.setattr(import_module(f"attention_coresets.coresets.walks.{name}"), kernel, Counted())
    monkeypatch.setattr(compiled, "triton_fault", lambda device: None)
    with pretend_cuda() as counts, backend("triton"):
        gram, u = torch.eye(n, dtype=torch.float64).repeat(2, 1, 1).to("cuda"), uniforms(2, n).to("cuda")
        x = torch.zeros_like(u)
        counts.clear()
        pair_signs(gram, x, u, RULES["kernel_halving"]())
        halving = predicted.triton_halving("", 2, n)
        assert (counts.launches.total() + len(kernels), counts.waits.total()) == (halving.launches, halving.waits)
        for counted in (counts, kernels):
            counted.clear()
        with pytest.raises(RuntimeError, match="still fractional"):
            walk_signs(gram, x, u)
    expected = predicted.triton_launches(n)
    assert counts.launches.total() + len(kernels) == expected.launches
    assert (counts.waits.total(), counts.transfers.total()) == (expected.waits, 0)
    assert expected.waits <= 0.1 * n


@pytest.mark.parametrize(("dtype", "name"), [(torch.float32, "auto"), (torch.float64, "torch")])
def test_other_loops_run_where_kernels_are_not_wanted(monkeypatch, dtype, name):
    monkeypatch.setattr(compiled, "_INTERPRETED", False)
    with backend(name):
        assert compiled.triton_kernels("any", torch.zeros(1, dtype=dtype).as_subclass(OnGpu)) is None


def test_interpreted_kernels_run_where_they_are_asked_for_alone():
    if torch.cuda.is_available():
        pytest.skip("on a GPU they are compiled")
    x = torch.zeros(1, dtype=torch.float64)
    assert compiled.triton_kernels("math", x) is None
    with backend("triton"):
        assert compiled.triton_kernels("math", x).__name__ == "math"


def test_work_at_once_is_what_the_memory_holds(monkeypatch):
    """On a GPU that has 100 numbers five times over, of which torch holds 40 unused; on the CPU as it is told."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5 * 8 * 60, 10**12))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * 8 * 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5 * 8 * 10)
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert [at_once(each, cuda, 7) for each in (1, 25, 60, 101)] == [100, 4, 1, 1]
    assert [at_once(each, cpu, 7) for each in (1, 2, 8)] == [7, 3, 1]


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from attention_coresets.coresets.walks import pairs_triton, walk_triton

def build(kernel, types, **constants):
    names = [*types, *constants]
    assert names == kernel.arg_names, (names, kernel.arg_names)
    source = ASTSource(kernel, types | dict.fromkeys(constants, "constexpr"), constants)
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 16})
    assert built.asm["cubin"] and built.metadata.shared < 48 * 1024, built.metadata
    print(kernel.__name__, len(built.asm["cubin"]))

double, whole = ("inverse", "pending", "rows"), ("token", "order")
types = dict.fromkeys(double, "*fp64") | dict.fromkeys(whole, "*i32")
types |= {"uniforms": "*fp64", "state": "*i32", "kept": "*i8", "width": "i32", "tokens": "i32"}
build(walk_triton._steps, types, BLOCK=96, PENDING=128, EXACT=True, FREEZE=1e-10, TILE=2048)
types = {"gram": "*fp64", "rows": "*fp64", "order": "*i32", "uniforms": "*fp64", "number": "*fp64", "n": "i32"}
for gram, rule in (("*fp64", "kernel_halving"), ("*fp32", "self_balancing")):
    build(pairs_triton._walk, types | {"gram": gram}, KIND=rule, FREEZE=1e-10, TILE=2048)
"""


def test_both_compile_for_an_h100(tmp_path):
    """In a process of its own, where nothing is interpreted; no GPU is needed."""
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["_steps", "_walk", "_walk"]
