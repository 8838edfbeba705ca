"""A climb's steps as a CUDA graph: chosen on a GPU, to the same end; what no graph holds is said and done without."""

import pytest
import torch

from attention_coresets import make_cache, make_coreset
from attention_coresets.adversary.ascent import climb
from attention_coresets.adversary.graphs import repeated
from attention_coresets.devices import DeviceWarning
from pretend_cuda import pretend_cuda
from tables import generators

X = torch.arange(6.0, dtype=torch.float64)


@pytest.mark.parametrize("steps", [7, 8, 40])
def test_climbs_end_where_they_end_without_a_graph(steps):
    cache = make_cache("sphere", n=64, d=4, heads=2)
    coreset = make_coreset("uniform")(cache, 16, 2.0, generators(0, 1))
    first = torch.randn(2, 8, 4, dtype=torch.float64, generator=generators(2)[0])
    expected = climb(cache, coreset, 2.0, first, steps)
    with pretend_cuda() as counts:
        on_device = type(coreset)(coreset.indices.to("cuda"))
        found = climb(cache.to("cuda"), on_device, 2.0, first.to("cuda"), steps)
        found = [x.cpu() for x in found]
        assert counts.launches["a graph"] == (0 if steps < 8 else steps - 1)
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


def test_a_replayed_step_is_one_launch():
    def launches(count: int) -> int:
        with pretend_cuda() as counts:
            x = X.to("cuda")
            counts.clear()
            found = repeated(lambda state: (state[0] * 2 + 1,), (x,), count)
            assert torch.equal(found[0].cpu(), 2.0**count * X + 2.0**count - 1)
            return sum(counts.launches.values())

    assert launches(50) - launches(20) == 30


@pytest.mark.parametrize(
    ("step", "end"),
    [
        (lambda x: x + float(x[1]), X + 2.0**9 - 1),
        (lambda x: x[x >= 0] + 1, X + 9),
        (lambda x: x + torch.ones(6, dtype=x.dtype).to(x.device), X + 9),
        (lambda x: x.bernoulli(0.0, generator=torch.Generator("cuda")), 0 * X),
    ],
    ids=["waits", "a shape that depends on numbers", "brings numbers", "draws"],
)
def test_what_no_graph_holds_is_said_and_done_without(step, end):
    with pretend_cuda() as counts:
        with pytest.warns(DeviceWarning, match=r"cannot be captured .*one by one") as said:
            (found,) = repeated(lambda state: (step(state[0]),), (X.to("cuda"),), 9)
        assert torch.equal(found.cpu(), end)
    assert counts.launches["a graph"] == 0
    assert len(said) == 1


def test_a_graph_that_does_not_repeat_the_step_is_not_used():
    calls = []

    def step(state: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        calls.append(state)
        return (state[0] + (2 if len(calls) == 3 else 1),)  # the third call is the one that is captured

    with pretend_cuda():
        with pytest.warns(DeviceWarning, match="does not repeat it"):
            (found,) = repeated(step, (X.to("cuda"),), 10)
        assert torch.equal(found.cpu(), X + 10)
