"""Geometry of every KV head of a model, on texts of different kind: results/<tier>/heads.parquet.

python scripts/heads.py [--tier quick] [--results DIR] [--workers N]
python scripts/heads.py --gemma               # of Gemma 3 270M, which is opt-in: results/<tier>/heads_gemma.parquet

Captures the model's caches first where that has not been done (a minute or two a text). Model, texts and lengths of a
tier: conf/heads.yaml. One row a (text, layer, KV head); columns as attention_coresets.models.head_geometry. About 5 s a
head of 4096 tokens a core.
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import argparse
import multiprocessing
import os
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from attention_coresets.models.capture import capture
from attention_coresets.models.captured import Model, load_head, read_layer
from attention_coresets.models.head_geometry import geometry
from attention_coresets.study.checks import TIERS
from attention_coresets.study.provenance import provenance
from attention_coresets.study.disk import StudyError, replacing

REPOSITORY = Path(__file__).resolve().parents[1]
SHOWN = [
    *("rho_centred", "rho_ball", "rho_linear", "rho_query_linear", "exponent_query_linear", "half_range"),
    *("log_total_sensitivity", "log_total_sensitivity_heldout", "gamma", "coverage_99", "sink_weight"),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tier", choices=TIERS, default="reduced")
    parser.add_argument("--gemma", action="store_true", help="the second model's heads (requirements-gemma.txt)")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "results")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    arguments = parser.parse_args()
    path = arguments.results / arguments.tier / ("heads_gemma.parquet" if arguments.gemma else "heads.parquet")
    try:
        asked = f"gemma.{arguments.tier}" if arguments.gemma else arguments.tier
        table = measure_heads(asked, arguments.workers)
        with replacing(path) as temporary:
            table.to_parquet(temporary, index=False)
    except (ValueError, RuntimeError, OSError, StudyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for text, rows in table.groupby("text"):
        print(f"{text}: {len(rows)} heads of {rows['n'].iloc[0]} tokens")
        print(rows[SHOWN].quantile([0.1, 0.5, 0.9]).T.round(2).to_string())
    print(path)
    return 0


def measure_heads(asked: str, workers: int = 1) -> pd.DataFrame:
    """One row a (text, layer, KV head) of an entry of conf/heads.yaml; the same whatever the number of processes."""
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    origin = provenance()  # refuses a wrong revision before the work
    model = dict(OmegaConf.select(OmegaConf.load(REPOSITORY / "conf" / "heads.yaml"), asked))
    heads = [head for text in model.pop("texts") for head in _heads(Model(text=text, **model))]
    bar = {"total": len(heads), "desc": f"heads of {heads[0].model}", "unit": "head"}
    if workers == 1:
        rows = list(tqdm(map(_row, heads), **bar))
    else:
        with multiprocessing.get_context("spawn").Pool(min(workers, len(heads)), torch.set_num_threads, (1,)) as pool:
            rows = list(tqdm(pool.imap(_row, heads), **bar))
    return pd.DataFrame(rows).assign(**origin)


def _heads(first: Model) -> list[Model]:
    """Every KV head of every layer that can be captured, as parameters of the cache family; captures them."""
    layers = list(capture(first.source))
    count = read_layer(first.source, layers[0]).keys.shape[0]
    return [replace(first, layer=layer, kv_head=head) for layer in layers for head in range(count)]


def _row(head: Model) -> dict[str, str | float]:
    place = {"layer": head.layer, "kv_head": head.kv_head, "n": head.n, "model": head.model, "text": head.text}
    return place | {"calibration": head.source.calibrated, "queries": head.queries} | geometry(load_head(head))


if __name__ == "__main__":
    sys.exit(main())
