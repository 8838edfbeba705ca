"""Says which finished cells are of other code than this."""

import sys

import pandas as pd

from attention_coresets.study.provenance import provenance, same_code


def of_other_code(rows: pd.DataFrame) -> set[str]:
    """The cells, of rows with columns cell, revision and dirty, computed with other, uncommitted or unknown code."""
    old = [revision for revision in set(rows["revision"]) if not same_code(revision)]
    return set(rows.loc[rows["dirty"].astype(bool) | rows["revision"].isin(old), "cell"])


def tell_older(rows: pd.DataFrame) -> None:
    """Says on stderr how many of these cells, which are not computed again, are of other code than this; nothing where
    the present code has no revision to compare with."""
    if rows.empty or provenance()["revision"] == "unknown":
        return
    if older := of_other_code(rows):
        print(
            f"note: {len(older)} of {rows['cell'].nunique()} cells done before were computed with other, uncommitted or"
            " unknown code; paths.results=NEW_FOLDER computes them anew",
            file=sys.stderr,
        )
