"""The audit: rows that are as the table says pass, one that was changed is named, and so is one nobody can compute."""

import math
from pathlib import Path

import pandas as pd
import pytest

from attention_coresets.coresets.agreement import WITHIN, Agreement
from attention_coresets.study.audit import agreement_of, compared, sample, summary
from attention_coresets.study.config import REPOSITORY
from command_line import script

COMMITTED = REPOSITORY / "results" / "quick" / "table.parquet"
EXPERIMENT = "lower_bound_controls"
verify = script("verify")


def written(tmp_path: Path, rows: pd.DataFrame) -> list[str]:
    folder = tmp_path / "quick"
    folder.mkdir(exist_ok=True)
    rows.to_parquet(folder / "table.parquet")
    return ["--results", str(tmp_path), "--tier", "quick", "--processes", "1"]


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """The committed rows of one small cell."""
    table = pd.read_parquet(COMMITTED)
    own = table.loc[(table["experiment"] == EXPERIMENT) & (table["arm"] == "walk_tilted")]
    return own.loc[own["cell"] == own["cell"].iloc[0]]


def test_committed_rows_are_computed_again_and_a_changed_one_is_named(rows, tmp_path, capsys) -> None:
    changed = rows.copy()
    first = changed.index[0]
    changed.loc[first, "error"] *= 1 + 1e-4
    assert verify.main(written(tmp_path, changed)) == 1
    out = capsys.readouterr().out
    size, head = rows.loc[first, ["size", "head"]]
    assert f"walk_tilted, cell {rows['cell'].iloc[0]}, m = {size}, head {head}: error is" in out
    assert out.count("off: ") == 1
    assert f"1 of {len(rows)} rows off by more" in out


def test_a_cell_that_no_grid_has_is_said(rows, tmp_path, capsys) -> None:
    assert verify.main(written(tmp_path, rows.assign(cell="0123456789abcdef"))) == 2
    assert f"{EXPERIMENT}: cell 0123456789abcdef of the table is in no grid of tier quick" in capsys.readouterr().err


def test_a_sample_is_of_short_cells_and_repeatable() -> None:
    table = pd.read_parquet(COMMITTED)
    drawn, of = sample(table, 50, 3, 1.0)
    assert len(drawn) == 50
    assert not drawn.duplicated(["cell", "size", "head"]).any()
    pd.testing.assert_frame_equal(drawn, sample(table, 50, 3, 1.0)[0])
    distinct = table.drop_duplicates(["cell", "size", "head"])
    took = distinct.groupby("cell")[["seconds_construct", "seconds_adversary"]].sum().sum(axis=1)
    assert of == distinct["cell"].isin(took.index[took <= 1.0]).sum() < len(distinct)
    assert (took[drawn["cell"]] <= 1.0).all()


@pytest.mark.parametrize(
    ("agreement", "inside", "outside"),
    [
        (Agreement.TOKENS, 0.5 + 4e-7, 0.5 + 6e-7),
        (Agreement.TIES, 0.5 + 1.4e-6, 0.5 - 1.6e-6),
        (Agreement.ERROR, 0.5 * (1 + 0.9 * WITHIN), 0.5 * (1 - 1.1 * WITHIN)),
    ],
)
def test_what_a_class_allows(rows, agreement, inside, outside) -> None:
    told = rows.head(1).assign(error=0.5, certificate=math.nan, heldout_mean=math.nan, loss=math.nan, kl=math.nan)
    where = {"size": told["size"].iloc[0], "head": told["head"].iloc[0]}
    for found, off in ((inside, 0), (outside, 1), (math.nan, 1)):
        (row,) = compared(told, [where | {"error": found}], agreement)
        assert (row.measure, row.told) == ("error", 0.5)
        (line,) = summary([row])
        assert (line["rows"], line["off"]) == (1, off)


def test_classes_of_cells() -> None:
    plain = {"cache": {"name": "sphere"}, "coreset": {"name": "gram_schmidt_walk", "model": "tilted"}}
    assert agreement_of(plain) == Agreement.TOKENS
    assert agreement_of(plain | {"cache": {"name": "model"}}) == Agreement.ERROR
    assert agreement_of(plain | {"task": "hardness"}) == Agreement.ERROR
    minimax = {"name": "gram_schmidt_walk", "model": "tilted", "refinement": "minimax"}
    assert agreement_of(plain | {"coreset": minimax}) == Agreement.ERROR
