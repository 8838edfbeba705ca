"""Says which finished cells are of other code than this."""

import sys

import pandas as pd

from attention_coresets.study.provenance import provenance, same_code
from attention_coresets.study.store import Store

_COLUMNS = ("cell", "revision", "dirty")


def of_other_code(rows: pd.DataFrame) -> set[str]:
    """The cells, of rows with columns cell, revision and dirty, computed with other, uncommitted or unknown code."""
    old = [revision for revision in set(rows["revision"]) if not same_code(revision)]
    return set(rows.loc[rows["dirty"].astype(bool) | rows["revision"].isin(old), "cell"])


def tell_older(store: Store, done: set[str]) -> None:
    """Says on stderr how many cells that are not computed again are of other code than this; nothing where the present
    code has no revision to compare with."""
    tables = [table.to_pandas() for table in store.tables(done, _COLUMNS)]
    if not tables or provenance()["revision"] == "unknown":
        return
    if older := of_other_code(pd.concat(tables)):
        print(
            f"note: {len(older)} of {len(done)} cells done before were computed with other, uncommitted or unknown"
            " code; paths.results=NEW_FOLDER computes them anew",
            file=sys.stderr,
        )
