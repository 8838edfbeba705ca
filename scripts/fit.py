"""Fits the laws of analysis/topics/*/plans.py to a tier: results/<tier>/table.parquet -> results/<tier>/fits.json.

    python scripts/fit.py --tier reduced

Prints the laws as a table. An experiment without results is reported as "not run". Exit code 2, and nothing written,
where the table is missing or damaged. Takes about a second a law.
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import argparse
import hashlib
import json
import sys
from pathlib import Path

import pandas as pd

from attention_coresets.analysis.stats.planned_fits import fit_all
from attention_coresets.analysis.topics.contents import PLANS
from attention_coresets.study.disk import StudyError, write_atomically
from attention_coresets.study.table import read_table

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    folder = options.results / options.tier
    path = folder / "table.parquet"
    plans = [plan for plan in PLANS if not options.name or plan.name in options.name]
    try:
        table = read_table(path)
        records = fit_all(table, plans, seed=options.seed, replicates=options.replicates)
        content = {"provenance": _provenance(path, table, options), "fits": records}
        write_atomically(folder / "fits.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    except StudyError as reason:
        print(f"fit: {reason}", file=sys.stderr)
        return 2
    print(_readable(records))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tier", default="reduced", choices=("smoke", "quick", "reduced", "full"))
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of the tiers")
    parser.add_argument("--replicates", type=int, default=400, help="bootstrap resamples")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    parser.add_argument(
        "--name", action="append", choices=[p.name for p in PLANS], help="this law only; can be repeated"
    )
    return parser


def _provenance(path: Path, table: pd.DataFrame, options: argparse.Namespace) -> dict:
    return {
        "table_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "revisions": sorted(table["revision"].unique().tolist()),
        "tier": options.tier,
        "replicates": options.replicates,
        "seed": options.seed,
    }


def _readable(records: list[dict]) -> str:
    lines = [line for record in records for line in _lines(record)]
    return pd.DataFrame(lines).fillna("").to_string(index=False)


def _lines(record: dict) -> list[dict]:
    fixed = {k: v for k, v in record.get("fixed", {}).items() if k != "variant"}
    start = {"law": record["name"], "of": " ".join(map(str, fixed.values()))}
    if record["status"] != "fitted":
        return [start | {"estimate": f"{record['status']} {record.get('reason', '')}".strip()}]
    tail = {
        "caches": str(record["caches"]),
        "left": f"{record['censored_left']:.0%}",
        "right": f"{record['censored_right']:.0%}",
    }
    return [
        start | {"symbol": name, "estimate": f"{c['value']:.3f} [{c['low']:.3f}, {c['high']:.3f}]"} | tail
        for name, c in record["coefficients"].items()
        if name != "const"
    ]


if __name__ == "__main__":
    sys.exit(main())
