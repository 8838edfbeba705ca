"""Committed results can be computed again: every arm still keeps the tokens it kept when they were written."""

import json

import pytest
import torch

from attention_coresets import Coreset
from attention_coresets.coresets.arms import ARMS
from golden import make_settings
from golden.make_tokens import FILE, coreset_of

KEPT = json.loads(FILE.read_text())
SETTINGS = json.loads(make_settings.FILE.read_text())


@pytest.mark.rounding
@pytest.mark.parametrize("label", KEPT)
def test_tokens_are_those_of_the_committed_results(label):
    row = KEPT[label]
    found = coreset_of(row["construction"], row["parameters"])
    weights = None if row["log_weights"] is None else torch.tensor(row["log_weights"], dtype=torch.float64)
    kept = Coreset(torch.tensor(row["tokens"]), weights)
    assert torch.equal(found.indices, kept.indices)
    if weights is None:
        assert found.log_weights is None
    else:  # 9 decimals are kept
        torch.testing.assert_close(found.log_weights, weights, rtol=0, atol=1e-6)


def test_every_arm_has_its_parameters_still():
    for label, row in KEPT.items():
        assert (ARMS[label].construction, ARMS[label].parameters) == (row["construction"], row["parameters"])


def test_defaults_are_what_they_were():
    assert json.loads(json.dumps(make_settings.defaults())) == SETTINGS["defaults"]


@pytest.mark.rounding
def test_ceilings_are_what_they_were():
    for found, kept in zip(make_settings.ceilings(), SETTINGS["ceilings"], strict=True):
        assert found == pytest.approx(kept, rel=1e-6)
