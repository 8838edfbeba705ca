"""Repeats a step of many small operations: on a GPU as a CUDA graph, which is one launch a step in place of dozens."""

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from attention_coresets.devices import DeviceWarning

State = TypeVar("State", bound=tuple[Tensor, ...])

_FEWEST = 8  # steps that are worth a graph: two are taken without it, and capturing one costs as much as some more
_SAME = 1e-3  # of the largest number: how far a replayed step may be from the same step taken as usual


def repeated(step: Callable[[State], State], state: State, count: int) -> State:
    """Takes `count` steps from `state` on.

    On a CUDA device, and from 8 steps on, one step is captured as a graph and replayed. It is used only if its first
    replay gives what the step gives without it; otherwise, and where it cannot be captured, a DeviceWarning says so in
    one line, and all steps are taken one by one.

    Parameters
    ----------
    step : callable
        Returns new tensors of the same shapes, and depends on its argument and on tensors that stay where they are. It
        neither waits for the device nor brings numbers to it, nor draws random ones: no graph can.
    state : tuple of Tensor
    count : int

    Returns
    -------
    tuple of Tensor
        Of the same type.
    """
    if count >= _FEWEST and state[0].is_cuda:
        # whatever libraries set up at first cannot be captured
        state, count = step(state), count - 1
        with torch.cuda.device(state[0].device):
            return _replayed(step, state, count)
    return _taken(step, state, count)


def _taken(step: Callable[[State], State], state: State, count: int) -> State:
    for _ in range(count):
        state = step(state)
    return state


def _replayed(step: Callable[[State], State], state: State, count: int) -> State:
    expected, graph = step(state), torch.cuda.CUDAGraph()
    now = torch.cuda.stream(torch.cuda.current_stream())  # a capture that fails leaves its own stream the current one
    try:
        with (
            now,
            torch.cuda.graph(graph, stream=torch.cuda.Stream(), capture_error_mode="thread_local"),
        ):
            for x, y in zip(state, step(state), strict=True):
                x.copy_(y)
    except RuntimeError as error:
        _say(f"cannot be captured ({' '.join(str(error).split())[:200]})")
        return _taken(step, expected, count - 1)
    graph.replay()
    apart = [(x - y).abs().amax() <= _SAME * y.abs().amax() for x, y in zip(state, expected, strict=True)]
    if not bool(torch.stack(apart).all()):
        _say("does not repeat it")
        return _taken(step, expected, count - 1)
    for _ in range(count - 1):
        graph.replay()
    torch.cuda.synchronize()  # the graph's memory goes with it
    return state


def _say(fault: str) -> None:
    warnings.warn(f"a step's CUDA graph {fault}: steps are launched one by one, slower", DeviceWarning, stacklevel=4)
