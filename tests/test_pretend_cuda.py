"""The pretended GPU itself: says cuda:0, refuses what a GPU refuses, computes what the CPU does; counts, by hand."""

import numpy as np
import pytest
import torch

from pretend_counts import Counts
from pretend_cuda import pretend_cuda

X = torch.arange(6.0, dtype=torch.float64).reshape(3, 2)


def total(counts: Counts) -> tuple[int, int, int]:
    return tuple(sum(found.values()) for found in (counts.launches, counts.waits, counts.transfers))


def test_a_tensor_says_where_it_is():
    with pretend_cuda():
        for x in (X.to("cuda"), X.cuda(), torch.zeros(3, 2, device="cuda:0"), torch.tensor([1.0], device="cuda")):
            assert x.device == torch.device("cuda:0")
            assert (x.is_cuda, x.is_cpu, (x + 1).is_cuda, x[0].is_cuda, torch.zeros_like(x).is_cuda) == (1, 0, 1, 1, 1)
        assert x.to("cuda") is x
        assert x.cpu().device.type == torch.zeros_like(x, device="cpu").device.type == "cpu"
        assert x.new_tensor([1, 2]).is_cuda
        assert torch.nn.Linear(2, 3).to("cuda").weight.is_cuda
    assert not torch.cuda.is_available()


def test_it_computes_what_the_cpu_does():
    with pretend_cuda():
        x = X.to("cuda")
        y = x.clone()
        y[1], y[y > 4] = 7.0, -1.0
        y[0].mul_(2)  # a view's change is seen in the whole
        expected = torch.tensor([[0.0, 2.0], [-1.0, -1.0], [4.0, -1.0]], dtype=torch.float64)
        assert torch.equal(y.cpu(), expected)
        assert torch.equal(x.cpu(), X)  # no copy shares memory with its source
        assert (x @ x[[2, 0]].mT).tolist() == (X @ X[[2, 0]].mT).tolist()
        assert torch.linalg.eigh(x.mT @ x).eigenvalues.tolist() == torch.linalg.eigh(X.mT @ X).eigenvalues.tolist()
        assert (torch.ones(3, device="cuda", dtype=x.dtype) @ x).tolist() == [6, 9]


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x + torch.ones(2),
        lambda x: x @ torch.ones(2, 2, dtype=x.dtype),
        lambda x: torch.cat([x, torch.ones(1, 2)]),
        lambda x: torch.ones(3)[x[:, 0].long()],
        lambda x: x.index_put_((torch.tensor([0]),), torch.ones(2, dtype=x.dtype)),
        lambda x: torch.ones(3, 2).mul_(x),
        lambda x: torch.stack([x[0, 0], torch.tensor(1.0)]),
        lambda x: x.gather(0, torch.zeros(1, 2, dtype=torch.int64)),
    ],
)
def test_two_devices_are_refused(work):
    with (
        pretend_cuda(),
        pytest.raises(RuntimeError, match="all tensors to be on the same device"),
    ):
        work(X.to("cuda"))


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x + torch.tensor(2.0),
        lambda x: torch.where(x > 1, x, torch.tensor(0.0, dtype=x.dtype)),
        lambda x: x[torch.tensor([0, 2])],
        lambda x: x.clamp_max(torch.tensor(3.0)),
        lambda x: x.masked_fill(x > 1, torch.tensor(2.0)),
        lambda x: torch.empty(3, 2).copy_(x),
    ],
)
def test_scalars_indices_and_copies_may_cross(work):
    with pretend_cuda():
        assert work(X.to("cuda")).cpu().tolist() == work(X).tolist()


def test_numpy_is_refused():
    with pretend_cuda():
        for work in (torch.Tensor.numpy, np.asarray):
            with pytest.raises(TypeError, match=r"Use Tensor\.cpu\(\)"):
                work(X.to("cuda"))


def test_generators_are_of_a_device():
    with pretend_cuda():
        ours, theirs = torch.Generator("cuda").manual_seed(1), torch.Generator().manual_seed(1)
        assert (ours.device.type, theirs.device.type) == ("cuda", "cpu")
        assert isinstance(ours, torch.Generator)
        assert torch.rand(2, device="cuda", generator=ours).tolist() == torch.rand(2, generator=theirs).tolist()
        with pytest.raises(RuntimeError, match="Expected a 'cpu' device type for generator but found 'cuda'"):
            torch.rand(2, generator=ours)
        with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator but found 'cpu'"):
            torch.rand(2, device="cuda", generator=theirs)
        with pytest.raises(RuntimeError, match="Expected a 'cuda'"):
            X.to("cuda").normal_(generator=theirs)


@pytest.mark.parametrize(
    ("work", "counts"),
    [
        (lambda x: x.mul(2).add_(1), (2, 0, 0)),
        (lambda x: x.mT.unsqueeze(0)[:, :1].squeeze(0), (0, 0, 0)),  # views
        (lambda x: torch.empty_like(x), (0, 0, 0)),
        (lambda x: x @ x.mT, (1, 0, 0)),
        (lambda x: float(x.sum()), (1, 1, 0)),
        (lambda x: bool((x > 1).any()), (2, 1, 0)),
        (lambda x: [int(i) for i in x[:, 0]], (0, 3, 0)),
        (lambda x: x.tolist(), (1, 1, 0)),
        (lambda x: x[x > 1], (2, 1, 0)),
        (lambda x: x.masked_fill(x > 1, 0), (2, 0, 0)),
        (lambda x: x.nonzero(), (1, 1, 0)),
        (lambda x: torch.linalg.cholesky(x.mT @ x), (3, 1, 0)),
        (lambda x: torch.linalg.cholesky_ex(x.mT @ x), (2, 0, 0)),
        (lambda x: torch.tensor([1.0, 2.0], device=x.device), (1, 0, 1)),
        (lambda x: torch.ones(3).to(x), (1, 0, 1)),
        (lambda x: x[torch.tensor([0, 1])], (1, 0, 1)),
        (lambda x: x.copy_(torch.ones(3, 2)), (1, 0, 1)),
    ],
)
def test_counts_by_hand(work, counts):
    with pretend_cuda() as found:
        x = X.to("cuda")
        found.clear()
        work(x)
        assert total(found) == counts


def test_memory_ends_where_it_is_told():
    with pretend_cuda() as counts:
        counts.largest = 8 * 100
        torch.zeros(100, dtype=torch.float64, device="cuda")
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            torch.zeros(101, dtype=torch.float64, device="cuda")
        torch.zeros(101)  # the CPU's is another


def test_a_graph_computes_when_it_is_replayed():
    with pretend_cuda() as counts:
        x, y = X.to("cuda"), torch.zeros(3, device="cuda", dtype=X.dtype)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            made = x.mul_(2).sum(-1)
            y.copy_(made)
        assert torch.equal(x.cpu(), X)
        assert y.tolist() == [0, 0, 0]
        assert bool(made.isnan().all())
        counts.clear()
        graph.replay()
        graph.replay()
        assert total(counts) == (2, 0, 0)
        assert torch.equal(x.cpu(), 4 * X)
        assert y.tolist() == made.tolist() == [4, 20, 36]
