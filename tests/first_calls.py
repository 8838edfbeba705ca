"""Shape annotations are checked in the first calls of each function in each test: in all of them they took a third of
the suite's time. With CHECK_EVERY_CALL=1 in the environment all are.

The import hook puts `jaxtyping.jaxtyped` above every function, looked up when a module is imported.
"""

import functools
from collections.abc import Callable
from types import CodeType

import jaxtyping
import torch
from jaxtyping import jaxtyped

CALLS = 3
_made: dict[CodeType, int] = {}  # calls of each function so far; functions made anew at each call of another are one


def check_first_calls() -> None:
    """From now on, in modules that are imported later."""
    jaxtyping.jaxtyped = _sometimes  # type: ignore[assignment]


def begin_test() -> None:
    """The next calls are first ones again."""
    _made.clear()


def _sometimes(function=None, *, typechecker):
    if function is None:
        return functools.partial(_sometimes, typechecker=typechecker)
    if not hasattr(function, "__code__"):  # classes, properties, static methods
        return jaxtyped(function, typechecker=typechecker)
    checked: list[Callable] = []

    @functools.wraps(function)
    def called(*args, **kwargs):
        if torch.compiler.is_compiling():  # a trace cannot look up code
            return function(*args, **kwargs)
        made = _made.get(function.__code__, 0)
        if made >= CALLS:
            return function(*args, **kwargs)
        _made[function.__code__] = made + 1
        if not checked:
            checked.append(jaxtyped(function, typechecker=typechecker))
        return checked[0](*args, **kwargs)

    return called
