"""What a GPU machine may lack: one clear line each, and the run goes on where it can."""

import warnings
from importlib import metadata
from itertools import chain

import pytest
import torch

from attention_coresets import Coreset, Stream, make_cache, make_coreset, structured_worst, worst_query
from attention_coresets.caches.signed_clusters import SignedClusters
from attention_coresets.devices import DeviceWarning, in_parts
from attention_coresets.models import language_models
from attention_coresets.models.requirement import check_transformers
from attention_coresets.study.parts import device_of
from benchmarks.gpu import device as device_step
from pretend_cuda import pretend_cuda
from tables import generators

RHO = 1.5


def cuda_generator(seed: int) -> torch.Generator:
    return torch.Generator("cuda").manual_seed(seed)


def test_a_cuda_generator_seeds_one_of_the_cpu():
    with pretend_cuda():
        cache, construct = make_cache("sphere", n=32, d=4, heads=2, device="cuda"), make_coreset("uniform")
        found = []
        for make in (cuda_generator, cuda_generator, lambda seed: [cuda_generator(seed), cuda_generator(seed + 1)]):
            with pytest.warns(DeviceWarning, match=r"drawn on the CPU.*cuda:0.*torch\.Generator\(\)\.manual_seed"):
                found.append(construct(cache, 8, RHO, make(7)).indices.tolist())
        assert found[0] == found[1]
        assert found[0][0] == found[2][0]  # a head's numbers are its generator's
        with pytest.warns(DeviceWarning, match="drawn on the CPU"):
            assert found[0] != construct(cache, 8, RHO, cuda_generator(8)).indices.tolist()


def test_the_gpu_script_tells_of_generators():
    with pretend_cuda():
        assert "a generator on cuda: random numbers are drawn on the CPU" in device_step._cuda_generator("cuda")
    assert device_step._cuda_generator("cpu") == "a generator on cpu: taken"


def test_every_door_takes_a_cuda_generator(rng):
    with pretend_cuda():
        cache = make_cache("sphere", n=40, d=4, device="cuda")
        with pytest.warns(DeviceWarning):
            kept = make_coreset("walk_tilted")(cache, 8, RHO, cuda_generator(1))
        with pytest.warns(DeviceWarning):
            assert worst_query(
                cache, kept, RHO, generator=cuda_generator(2), restarts=4, steps=2, polish=2
            ).error.is_cuda
        with pytest.warns(DeviceWarning):
            stream = Stream("greedy", 4, RHO, generator=cuda_generator(3))
        stream.add(cache.keys, cache.values)
        assert stream.coreset().indices.is_cuda
        signs = torch.from_numpy(SignedClusters(d=4, clusters=4).draw_signs(rng)).to("cuda")
        dropped = torch.ones_like(signs)
        dropped[0, 0] = 0.0
        with pytest.warns(DeviceWarning):
            found = structured_worst(signs, dropped, RHO, restarts=8, steps=2, polish=2, generator=cuda_generator(4))
        assert found.error.is_cuda
        assert found.error > 0


@pytest.mark.parametrize(("capability", "slow"), [((8, 6), True), ((8, 9), True), ((12, 0), True), ((9, 0), False)])
def test_a_gpu_without_fast_float64_is_named(capability, slow):
    with pretend_cuda() as counts:
        counts.capability = capability
        cache = make_cache("sphere", n=32, d=4, device="cuda")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            kept = make_coreset("uniform")(cache, 8, RHO, generators(1)[0])
            worst_query(cache, kept, RHO, restarts=4, steps=2, polish=2)
        lines = [str(one.message) for one in said]
        assert len(lines) == (2 if slow else 0)
        version = ".".join(map(str, capability))
        assert all(f"a pretended GPU (compute capability {version}) is slow in float64" in line for line in lines)


@pytest.mark.parametrize("name", ["gram_schmidt_walk", "herding"])
def test_where_memory_ends_fewer_heads_go_at_once(name):
    cache, construct = make_cache("sphere", n=48, d=4, heads=5), make_coreset(name)
    expected = construct(cache, 12, RHO, generators(*range(5)))
    with pretend_cuda() as counts:
        there = cache.to("cuda")
        counts.largest = 2 * 96 * 48 * 8  # what two heads fit into
        with pytest.warns(DeviceWarning, match="out of memory with 5 heads at once: going on with 2"):
            found = construct(there, 12, RHO, generators(*range(5)))
        assert torch.equal(found.indices.cpu(), expected.indices)


def test_where_no_head_fits_one_line_says_so():
    with pretend_cuda() as counts:
        cache = make_cache("sphere", n=48, d=4, heads=2, device="cuda")
        kept = Coreset(torch.arange(12, device="cuda").repeat(2, 1))
        counts.largest = 48 * 48 * 8 - 1
        line = r"^GramSchmidtWalk on 2 heads of 48 tokens: cuda:0 is out of memory; take fewer heads or tokens at once"
        with pytest.warns(DeviceWarning), pytest.raises(torch.OutOfMemoryError, match=line):
            make_coreset("gram_schmidt_walk")(cache, 12, RHO, generators(1, 2))
        line = "^worst_query on 2 heads of 48 tokens: cuda:0 is out of memory; take fewer"
        with pytest.raises(torch.OutOfMemoryError, match=line):
            worst_query(cache, kept, RHO)


def test_parts_are_cut_until_they_fit():
    def work(part: slice) -> list[int]:
        tried.append(part.stop - part.start)
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(range(part.start, part.stop))

    tried: list[int] = []
    with pretend_cuda(), pytest.warns(DeviceWarning):
        assert list(chain.from_iterable(in_parts(work, 7, 5))) == list(range(7))
    assert tried == [5, 2, 2, 2, 1]


@pytest.mark.parametrize("version", ["4.57.1", "5.0.0", "5.16.2", None])
def test_old_or_missing_transformers_are_named(monkeypatch, version):
    def found(package: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(package)
        return version

    monkeypatch.setattr(metadata, "version", found)
    line = (
        "not installed; pip" if version is None else rf"transformers {version} is too old.* 5\.17 is not; pip install"
    )
    with pytest.raises(ImportError, match=line):
        check_transformers()
    with pytest.raises(ImportError, match=line):
        language_models.load_model("tiny-random")


@pytest.mark.parametrize("version", ["5.17.0", "5.23.0", "6.0.0.dev0"])
def test_later_transformers_are_taken(monkeypatch, version):
    monkeypatch.setattr(metadata, "version", lambda package: version)
    check_transformers()


@pytest.mark.parametrize("task", ["hardness", "structured"])
def test_cells_of_the_cpu_say_so(task):
    with pretend_cuda():
        compute = {"compute": {"device": "auto"}}
        assert device_of(compute).type == "cuda"
        assert device_of(compute | {"task": task}).type == "cpu"
