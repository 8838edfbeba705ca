"""A cell told by the clusters' logits alone against the same cell told by its tokens, and what it refuses."""

import pytest

from attention_coresets.study.cell import run_cell
from attention_coresets.study.checks import check
from attention_coresets.study.disk import StudyError

SHARED = ("n", "d", "size", "head", "rho", "seed", "cache", "cache_params", "coreset", "model")


def configuration(task: str, signs: str, **changes) -> dict:
    compute = {"device": "cpu", "dtype": "float64", "threads": 1}
    adversary = {"restarts": 128, "steps": 80, "polish": 200, "certify": False, "gap": 1e-4}
    cache = {"name": "signed_clusters", "n": None, "d": 8, "clusters": 4, "signs": signs}
    own = {"cache": cache, "coreset": {"name": "coordinate_subset"}, "rho": 0.5, "seed": 3, "heads": 2}
    rest = {"sizes": [8, 16], "task": task, "adversary": adversary, "compute": compute, "arm": "coordinate_subset"}
    return own | rest | {"tier": "smoke", "tracking": {"name": "none"}} | changes


@pytest.mark.parametrize("signs", ["hadamard", "random"])
def test_logits_and_tokens_tell_the_same_rows(signs):
    few, all_tokens = (run_cell(configuration(task, signs)) for task in ("structured", "errors"))
    assert len(few) == len(all_tokens) == 4
    for a, b in zip(few, all_tokens, strict=True):
        assert {name: a[name] for name in SHARED} == {name: b[name] for name in SHARED}
        for name in ("error", "constant", "floor_iv", "floor_v", "sigma", "radius"):
            assert a[name] == pytest.approx(b[name], rel=1e-6), name
        assert a["error"] >= a["floor_iv"] * (1 - 1e-9) > a["floor_v"] * (1 - 1e-9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sizes": [7]}, "multiples of 4 clusters"),
        ({"coreset": {"name": "uniform", "sinks": 0}}, "coordinate_subset for task=structured"),
        ({"cache": {"name": "sphere", "n": 32, "d": 8}}, "signed_clusters with clusters <= d"),
    ],
)
def test_what_logits_cannot_tell_is_refused(changes, words):
    with pytest.raises(StudyError, match=words):
        check(configuration("structured", "random", **changes))
