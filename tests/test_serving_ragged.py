"""Attention over coresets of unequal sizes: against a softmax token by token, and what the storage holds."""

import math

import pytest
import torch

pytest.importorskip("transformers")

from attention_coresets import Coreset
from attention_coresets.models.serving import ragged
from attention_coresets.models.serving.ragged import Ragged, attend_ragged

KV, GROUP, N, LATER, D, DV = 3, 2, 20, 5, 4, 6
SIZES = (1, 13, 6)


def drawn(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def coresets(sizes=SIZES, weighted=(True, False, True)) -> list[Coreset]:
    made = []
    for head, (size, has_weights) in enumerate(zip(sizes, weighted, strict=True)):
        kept = torch.randperm(N, generator=torch.Generator().manual_seed(head))[:size].sort().values
        made.append(Coreset(kept, drawn(size, seed=head, scale=2.0) if has_weights else None))
    return made


def token_by_token(queries, keys, values, chosen, later_keys, later_values, seen, scaling) -> torch.Tensor:
    """The softmax written out in Python's floats."""
    out = torch.zeros(*queries.shape[:2], values.shape[-1], dtype=torch.float64)
    for head in range(queries.shape[0]):
        kv = head // (queries.shape[0] // keys.shape[0])
        for j, query in enumerate(queries[head].double()):
            terms = []
            for place, index in enumerate(chosen[kv].indices.tolist()):
                weight = 0.0 if chosen[kv].log_weights is None else float(chosen[kv].log_weights[place])
                terms.append((scaling * float(query @ keys[kv, index].double()) + weight, values[kv, index]))
            for t in range(later_keys.shape[1]):
                if seen[j, t]:
                    terms.append((scaling * float(query @ later_keys[kv, t].double()), later_values[kv, t]))
            top = max(logit for logit, _ in terms)
            total = sum(math.exp(logit - top) for logit, _ in terms)
            out[head, j] = sum(math.exp(logit - top) / total * value.double() for logit, value in terms)
    return out


def problem(dtype=torch.float64):
    tensors = (
        drawn(KV * GROUP, LATER, D, seed=1),
        drawn(KV, N, D, seed=2),
        drawn(KV, N, DV, seed=3),
        drawn(KV, LATER, D, seed=4),
        drawn(KV, LATER, DV, seed=5),
    )
    seen = torch.ones(LATER, LATER, dtype=torch.bool).tril()
    seen[:, 1] = False  # padding among the later tokens
    return *(x.to(dtype) for x in tensors), seen


@pytest.mark.parametrize(
    ("sizes", "weighted"),
    [(SIZES, (True, False, True)), (SIZES, (False,) * KV), ((7,) * KV, (True,) * KV), ((N, 1, 2), (True,) * KV)],
)
@pytest.mark.parametrize("at_once", [2**24, 1])
def test_the_softmax_of_each_head_over_its_own_tokens(monkeypatch, sizes, weighted, at_once) -> None:
    monkeypatch.setattr(ragged, "_LOGITS", at_once)
    queries, keys, values, later_keys, later_values, seen = problem()
    chosen = coresets(sizes, weighted)
    kept = Ragged.of(keys, values, chosen)
    found = attend_ragged(queries, kept, later_keys, later_values, seen, 0.7)
    expected = token_by_token(queries, keys, values, chosen, later_keys, later_values, seen, 0.7)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    none = attend_ragged(queries, kept, later_keys[:, :0], later_values[:, :0], seen[:, :0], 0.7)
    expected = token_by_token(queries, keys, values, chosen, later_keys[:, :0], later_values, seen, 0.7)
    torch.testing.assert_close(none, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_attended_to_in_single_precision(dtype) -> None:
    """Equal to the exact softmax of the same bits but for the output's rounding; log-weights as they were given."""
    queries, keys, values, later_keys, later_values, seen = problem(dtype)
    chosen = [Coreset(c.indices, None if c.log_weights is None else c.log_weights.float() + 9.123) for c in coresets()]
    kept = Ragged.of(keys, values, chosen)
    assert kept.keys.dtype == dtype
    assert kept.log_weights is not None
    first = chosen[0].log_weights
    assert first is not None
    assert torch.equal(kept.log_weights[: SIZES[0]], first)
    queries = 30 * queries
    expected = token_by_token(queries, keys, values, chosen, later_keys, later_values, seen, 1.0)
    for inside in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside):
            found = attend_ragged(queries, kept, later_keys, later_values, seen, 1.0)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=2**-8)
    huge = attend_ragged(queries * 300, kept, later_keys * 300, later_values, seen, 300.0)  # beyond float16's range
    assert huge.isfinite().all()


def test_a_gpu_takes_all_heads_at_once(device) -> None:
    """The sums of the CPU, which takes head by head."""
    queries, keys, values, later_keys, later_values, seen = problem()
    for weighted in ((True, False, True), (False,) * KV):
        chosen = coresets(weighted=weighted)
        expected = attend_ragged(queries, Ragged.of(keys, values, chosen), later_keys, later_values, seen, 0.7)
        weights = [None if c.log_weights is None else c.log_weights.to(device) for c in chosen]
        there = [Coreset(c.indices.to(device), w) for c, w in zip(chosen, weights, strict=True)]
        kept = Ragged.of(keys.to(device), values.to(device), there)
        given = (queries, later_keys, later_values, seen)
        moved, later, following, shown = (x.to(device) for x in given)
        found = attend_ragged(moved, kept, later, following, shown, 0.7)
        assert [own for own, _ in kept.heads()] == [slice(0, KV)]
        assert found.device.type == device
        torch.testing.assert_close(found.cpu(), expected, atol=1e-12, rtol=0)


def test_nothing_is_padded() -> None:
    keys, values = (drawn(KV, N, 64, seed=s).bfloat16() for s in (1, 2))
    kept = Ragged.of(keys, values, coresets())
    tensors = [x for x in vars(kept).values() if isinstance(x, torch.Tensor)]
    stored = sum(x.untyped_storage().nbytes() for x in tensors)
    nominal = sum(SIZES) * 2 * 64 * 2
    assert nominal < stored <= 1.05 * nominal
    for head, chosen in enumerate(coresets()):
        first = sum(SIZES[:head])
        assert torch.equal(kept.keys[first : first + SIZES[head]], keys[head, chosen.indices])
        assert kept.indices[first : first + SIZES[head]].tolist() == chosen.indices.tolist()


def test_what_does_not_fit_is_refused() -> None:
    keys, values = drawn(KV, N, D, seed=1), drawn(KV, N, DV, seed=2)
    with pytest.raises(ValueError, match="2 coresets for 3 KV heads; give one a head"):
        Ragged.of(keys, values, coresets()[:2])
    with pytest.raises(ValueError, match=r"coreset indices must lie in 0\.\.18, the tokens of the cache"):
        Ragged.of(keys[:, :19], values[:, :19], [Coreset(torch.tensor([19]))] * 3)
    with pytest.raises(ValueError, match="heads keep 1 to 13 tokens; take them one by one"):
        Ragged.of(keys, values, coresets()).even()
