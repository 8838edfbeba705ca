"""The soak of models on coresets sees wrong answers and growing memory, and finds none in a few conversations."""

import pytest

pytest.importorskip("transformers")

from benchmarks.soak import Model, blocks, growth, soak
from serving_models import make


def models(**changes) -> list[Model]:
    return [Model(make().double(), make(**changes).double(), shared) for shared in (True, False)]


def test_a_short_soak_finds_nothing_wrong() -> None:
    measured = soak(models(), minutes=0.05, threads=2, seed=0)
    assert measured["answers"] >= measured["talks"] >= 2
    assert measured["wrong"] == []
    said = blocks(
        measured | {"machine": {"processor": "one"}, "how": {"torch": "2", "date": "now", "revision": "a" * 40}}
    )
    assert f"{measured['answers']} answers" in said["serving_soak"]
    assert "none of them wrong" in said["serving_soak"]


def test_another_model_s_answers_are_seen_to_be_wrong() -> None:
    wrong = soak(models(initializer_range=0.2), minutes=0.02, threads=1, seed=0)["wrong"]
    assert {"seed": 0, "row": 0, "turn": 0} in wrong


def test_memory_that_grows_is_seen() -> None:
    assert growth({"memory": [[float(t), 100 + t] for t in range(60)]}) == pytest.approx(40 / 114.5)
    assert growth({"memory": [[float(t), 100] for t in range(60)]}) == 0
