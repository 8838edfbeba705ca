"""Typed access to data frames: groups with their names, and columns as arrays."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd


def groups(rows: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """({column: value}, rows) of each combination of the columns, sorted."""
    for found, group in rows.groupby(list(by), sort=True):
        values: Any = found
        yield dict(zip(by, values, strict=True)), group


def column(rows: pd.DataFrame, name: str) -> np.ndarray:
    """A numeric column as float64."""
    return rows[name].to_numpy(dtype=float)


def distinct(rows: pd.DataFrame, name: str) -> list[Any]:
    """Sorted values of a column."""
    return sorted(rows[name].unique().tolist())


def medians(rows: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Median of each column in each group; the columns of `by` come first."""
    return pd.DataFrame(rows.groupby(list(by), as_index=False)[list(columns)].median())


def means(rows: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Mean of each column in each group; the columns of `by` come first."""
    return pd.DataFrame(rows.groupby(list(by), as_index=False)[list(columns)].mean())
