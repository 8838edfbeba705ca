"""The mode of other rounding: what it changes, by how much, and that it shows what a plain run hides."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import test_constructions
import test_query_coresets
from attention_coresets import CORESETS, make_coreset
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.published import balancekv
from attention_coresets.coresets.queries import query_exchange
from attention_coresets.coresets.queries.calibration import Calibration
from rounding import LEVEL, OtherRounding, everywhere

A, B = (torch.randn(2, 30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
SQUARE = A @ A.mT + torch.eye(30, dtype=torch.float64)
CHANGED = {
    "matmul": lambda: A @ B,
    "einsum": lambda: torch.einsum("hij,hjk->hik", A, B),
    "vector": lambda: A @ B[0, 0],
    "add": lambda: torch.baddbmm(A, A, B, alpha=-1),
    "in place": lambda: A[0].clone().addmm_(A[1], B[1]),
    "outer": lambda: A[0].clone().addr_(B[0, 0], B[0, 1]),
    "sum": lambda: A.sum(-1),
    "mean": lambda: A.mean(),
    "norm": lambda: A.norm(dim=-1),
    "softmax": lambda: A.softmax(-1),
    "logsumexp": lambda: A.logsumexp(-1),
    "exp": lambda: A.exp(),
    "cholesky": lambda: torch.linalg.cholesky(SQUARE),
    "inverse": lambda: torch.cholesky_inverse(torch.linalg.cholesky(SQUARE)),
    "solve": lambda: torch.linalg.solve(SQUARE, B),
    "eigh": lambda: torch.linalg.eigh(SQUARE).eigenvalues,
    "svd": lambda: torch.linalg.svdvals(A),
    "single": lambda: (
        (A.float() @ B.float()).double() / (torch.finfo(torch.float32).eps / torch.finfo(torch.float64).eps)
    ),
}
WHOLE = torch.arange(-12, 12, dtype=torch.float64).reshape(4, 6)
EXACT = {
    "whole numbers": lambda: WHOLE @ WHOLE.mT,
    "count": lambda: (A > 0).double().sum(-1),
    "one term": lambda: torch.diag(A[0, 0]) @ B[0],
    "two terms": lambda: A[..., :2].sum(-1),
    "certain": lambda: torch.tensor([0.0, -1e4], dtype=torch.float64).softmax(-1),
    "zeros": lambda: torch.zeros(3, 4, dtype=torch.float64).exp(),
    "order": lambda: A.sort(dim=-1).values + B.amax(),
}


def other(seed=0):
    return OtherRounding(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", CHANGED)
def test_results_change_by_what_rounding_may_do(name):
    plain = CHANGED[name]()
    with other() as mode:
        first, second = CHANGED[name](), CHANGED[name]()
    assert mode.perturbed >= 2
    assert not torch.equal(first, plain)
    assert not torch.equal(first, second)  # drawn anew at each call
    condition = 1e5  # of these solves and factors; sums of 30 terms lose less
    assert (first - plain).abs().max() <= condition * LEVEL * (1 + plain.abs().max())
    with other():
        assert torch.equal(CHANGED[name](), first)  # by the seed alone


@pytest.mark.parametrize("name", EXACT)
def test_what_every_processor_computes_alike_stays(name):
    plain = EXACT[name]()
    with other():
        assert torch.equal(EXACT[name](), plain)


def test_noise_of_a_product_has_the_size_of_its_terms_not_of_its_result():
    """1 - 1 + tiny: the products of 1 leave an error of 1e-16, however small what is left."""
    row, column = torch.tensor([[1.1, -1.1, 1e-9]]).double(), torch.tensor([[1.3], [1.3], [1.0]]).double()
    exact, found = float(row @ column), []
    for seed in range(200):
        with other(seed):
            found.append(float(row @ column) - exact)
    size = LEVEL * 2 * 1.1 * 1.3
    assert max(np.abs(found)) == pytest.approx(size, rel=0.05)  # the largest of 200 uniform draws
    assert np.std(found) == pytest.approx(size / 3**0.5, rel=0.15)


def test_threads_of_a_pool_round_otherwise_too(monkeypatch):
    plain = A @ B
    monkeypatch.setattr(ThreadPoolExecutor, "submit", everywhere(torch.Generator().manual_seed(0)))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: A @ B, range(2)))
    assert not torch.equal(found[0], plain)
    torch.testing.assert_close(found[0], plain, rtol=0, atol=1e-13)


def test_a_threshold_at_which_values_stand_is_found_under_the_mode_alone(monkeypatch):
    """Unit values parted by the powers of 2: norms of 1 - 1e-16 and 1 fall apart by chance."""
    entry = ("balancekv", {"variant": "published"})
    monkeypatch.setattr(balancekv, "_LEVEL", 0.0)
    test_constructions.test_size_weights_and_batch(entry, "clusters")
    with pytest.raises(AssertionError), other():
        test_constructions.test_size_weights_and_batch(entry, "clusters")


@pytest.mark.parametrize("share", [1e-2, 1e-4])
def test_a_dependence_on_the_batch_fails_the_batch_test(share, rng, monkeypatch):
    """A head that hears a little of the others in its batch: the test that failed on another processor must say so."""
    whole = query_exchange.calibration

    def mixed(*arguments):
        weights, values = whole(*arguments)
        return Calibration((1 - share) * weights + share * weights.mean(dim=0), values)

    monkeypatch.setattr(query_exchange, "calibration", mixed)
    with pytest.raises(AssertionError):
        test_query_coresets.test_tokens_are_chosen_by_what_they_are_not_by_where_they_stand(rng, "query_exchange")


@pytest.mark.parametrize("name", CORESETS)
def test_every_construction_says_how_far_its_runs_agree(name):
    assert isinstance(make_coreset(name).agreement, Agreement)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"model": "tilted"}, "tokens"),
        ({"model": "unweighted", "refinement": "kernel_swaps"}, "ties"),
        ({"model": "free"}, "ties"),
        ({"model": "free", "refinement": "exchange"}, "error"),
        ({"model": "tilted", "refinement": "minimax"}, "error"),
    ],
)
def test_a_refinement_decides_how_far_runs_agree(parameters, expected):
    for name in ("gram_schmidt_walk", "kernel_halving", "greedy", "self_balancing_walk", "paired_coin"):
        assert make_coreset(name, **parameters).agreement == expected
