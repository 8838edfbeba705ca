"""Geometry of every KV head of the model that experiment=real_heads uses: results/<tier>/heads.parquet.

python scripts/heads.py [--tier quick] [--results DIR]

Captures the model's cache first where that has not been done (about a minute). One row a (layer, KV head); columns
as attention_coresets.caches.heads.geometry.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf
from tqdm import tqdm

from attention_coresets.caches.capture import capture
from attention_coresets.caches.heads import geometry
from attention_coresets.caches.model import Model, load_head, read_layer
from attention_coresets.study.checks import TIERS
from attention_coresets.study.provenance import provenance
from attention_coresets.study.store import StudyError, replacing

REPOSITORY = Path(__file__).resolve().parents[1]
SHOWN = ["rho_uncentred", "rho_centred", "rho_ball", "sigma", "log_total_sensitivity", "sink_weight", "effective_rank"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tier", choices=TIERS, default="reduced")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "results")
    arguments = parser.parse_args()
    path = arguments.results / arguments.tier / "heads.parquet"
    try:
        table = measure_heads(arguments.tier)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            table.to_parquet(temporary, index=False)
    except (ValueError, RuntimeError, OSError, StudyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table[SHOWN].describe().loc[["min", "25%", "50%", "75%", "max"]].round(2).to_string())
    print(f"{path}: {len(table)} heads")
    return 0


def measure_heads(tier: str) -> pd.DataFrame:
    """One row a (layer, KV head) of the tier's model, as experiment=real_heads normalises it."""
    at = OmegaConf.select(OmegaConf.load(REPOSITORY / "conf" / "experiment" / "real_heads.yaml"), f"at.{tier}")
    first = Model(n=at["n"], model=at["model"], queries=at["queries"])
    layers = len(capture(first.source))
    heads = read_layer(first.source, 0).keys.shape[0]
    places = [(layer, head) for layer in range(layers) for head in range(heads)]
    rows = []
    for layer, head in tqdm(places, desc=f"heads of {first.model}", unit="head"):
        parameters = Model(n=first.n, model=first.model, queries=first.queries, layer=layer, kv_head=head)
        found = geometry(load_head(parameters))
        rows.append({"layer": layer, "kv_head": head, "n": first.n, "model": first.model, **found, **provenance()})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    sys.exit(main())
