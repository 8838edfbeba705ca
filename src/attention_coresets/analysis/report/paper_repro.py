"""paper_repro.md: the answers on a first page, then every claim by block and experiment, of the strongest tier."""

from collections.abc import Sequence

import pandas as pd

from attention_coresets.analysis.parts.results import TIERS, Results
from attention_coresets.analysis.report.claims_page import claims
from attention_coresets.analysis.report.decided import decided
from attention_coresets.analysis.report.first_page import first_page
from attention_coresets.analysis.stats.frames import column, distinct


def strongest(tiers: Sequence[Results]) -> Results:
    """The tier that the page tells."""
    return max(tiers, key=lambda results: TIERS.index(results.tier))


def paper_repro(results: Results) -> str:
    """The whole page of one tier."""
    outcomes = decided(results)
    return "\n\n".join([first_page(results, outcomes), claims(results, outcomes), provenance(results)]) + "\n"


def provenance(results: Results) -> str:
    """Where a tier's numbers come from: revisions, versions, machine, counts, the share of sizes censored in fits."""
    rows = results.table
    dirty = " (some from a working tree with uncommitted changes)" if column(rows, "dirty").any() else ""
    revisions = ", ".join(revision[:12] for revision in distinct(rows, "revision"))
    versions = ", ".join(f"{name} {_joined(rows, name)}" for name in ("python", "torch", "numpy"))
    machines = ""
    if "processor" in rows:  # older tables do not say
        names = {*distinct(rows, "processor"), *distinct(rows, "device_name")}
        machines = f"; on {', '.join(sorted(names))}; loops in {_joined(rows, 'fast_path')}"
    return (
        f"Provenance: {rows['cell'].nunique()} cells, {len(rows)} rows; {_censored(results)}; revision {revisions}"
        f"{dirty}; {versions}; device {_joined(rows, 'device')}, {_joined(rows, 'dtype')}{machines}."
    )


def _censored(results: Results) -> str:
    sizes = [r for r in results.fits if r["status"] == "fitted" and r["response"] == "size"]
    fitted = sum(record["rows"] for record in sizes)
    censored = sum(record["rows"] * (record["censored_left"] + record["censored_right"]) for record in sizes)
    return f"{censored / fitted:.0%} of {fitted} sizes censored in the fits" if fitted else "no fits"


def _joined(rows: pd.DataFrame, name: str) -> str:
    return ", ".join(map(str, distinct(rows, name)))
