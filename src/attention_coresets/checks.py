"""Checks numbers that the package is given: one line that names the value, the limit and the remedy."""

import math
from typing import Any


def whole(name: str, value: Any) -> int:
    """Returns an int, of an int, a NumPy integer or a tensor of one; ValueError for True, 16.0 or anything else."""
    number = _scalar(value)
    if isinstance(number, int) and not isinstance(number, bool):
        return number
    known = isinstance(number, float) and number.is_integer()
    remedy = f"; write {int(number)}" if known else ""
    raise ValueError(f"{name} must be a whole number, got {_shown(value)}{remedy}")


def number(name: str, value: Any) -> int | float:
    """Returns an int or float, of a number of Python, NumPy or a tensor of one; ValueError for anything else."""
    found = _scalar(value)
    if isinstance(found, int | float) and not isinstance(found, bool):
        return found
    raise ValueError(f"{name} must be a number, got {_shown(value)}")


def _scalar(value: Any) -> Any:
    """Returns the Python number in a NumPy number or a tensor or array without axes, anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _shown(value: Any) -> str:
    """Returns the value and its type in at most one line."""
    text = " ".join(repr(value).split())
    return f"{text if len(text) <= 60 else text[:57] + '...'} of type {type(value).__name__}"


def positive(**values: int | float) -> None:
    """Raises ValueError unless every value is a finite number above 0."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be above 0, got {value}")


def not_negative(**values: int | float) -> None:
    """Raises ValueError unless every value is at least 0."""
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, got {value}")


def unit_interval(**values: int | float) -> None:
    """Raises ValueError unless every value lies strictly between 0 and 1."""
    for name, value in values.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie strictly between 0 and 1, got {value}")


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
