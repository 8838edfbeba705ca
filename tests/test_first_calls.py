"""Shapes are checked in the tests: in a function's first calls, and in those of every test anew."""

import os

import jaxtyping
import pytest
import torch

from attention_coresets import attend
from first_calls import CALLS, begin_test


@pytest.mark.skipif("CHECK_EVERY_CALL" in os.environ, reason="all calls are checked")
def test_first_calls_are_checked_and_later_ones_are_not():
    queries, keys = torch.zeros(2, 3), torch.zeros(5, 3)
    for _ in range(CALLS):
        with pytest.raises(jaxtyping.TypeCheckError):
            attend(queries, keys, torch.zeros(4, 3))  # values of four tokens, keys of five
    with pytest.raises(RuntimeError):
        attend(queries, keys, torch.zeros(4, 3))
    begin_test()
    with pytest.raises(jaxtyping.TypeCheckError):
        attend(queries, keys, torch.zeros(4, 3))
