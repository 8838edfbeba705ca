"""Checks parameters for the families: one line that names the value, the limit and the remedy."""

import math


def positive(**values: int | float) -> None:
    """Raises ValueError unless every value is a finite number above 0."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be above 0, got {value}")


def not_negative(**values: int | float) -> None:
    """ValueError unless every value is at least 0."""
    for name, value in values.items():
        if value < 0:
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
