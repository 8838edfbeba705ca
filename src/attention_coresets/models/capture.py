"""Runs a language model over a text once, and keeps each layer's post-RoPE keys, values and queries on disk.

The cache is the first n tokens of a segment of the text. Three sets of queries are kept beside it: those of its last
positions (calibration: what a server has seen when it compresses), the same moved behind the cache (rotary.py), and
those of the positions that follow (held out).

Each layer is one safetensors file, float32 exactly as the model computed it, with provenance and a checksum. Files are
under `captures/` in the repository, or where ATTENTION_CORESETS_CAPTURES points.

Cost: SmolLM2-135M at 7168 + 1024 tokens, the longest it reads, takes 1.6 GB of memory at the peak, 1.2 GB of them to
unpack the model, and 470 MB on disk (330 MB at 4096 + 1024).

Needs transformers and safetensors (the `models` extra), imported only when something runs.
"""

import fcntl
import hashlib
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from attention_coresets.models.capture_files import read_metadata, save, unusable
from attention_coresets.models.language_models import PACKAGED, TINY, load_model, prose
from attention_coresets.models.own_files import directory_digest
from attention_coresets.models.recording import asked_alone, plain_layers, record
from attention_coresets.models.rotary import learn_positions, move
from attention_coresets.registry import check_name

CALIBRATION = 512  # last positions of a cache whose queries are kept, where no number is given


@dataclass(frozen=True)
class Source:
    """What one capture holds: a model, a text, n cache tokens, and whose queries are kept beside them.

    model: `smollm2-135m`, `gemma3-270m`, `tiny-random`, or a hub model (owner/name) or its directory.
    text: `britannica`, `code`, `manual` or a path.
    n: tokens of the cache.
    queries: positions after the cache, held out. n + queries cannot exceed the model's positions (8192 for SmolLM2).
    calibration: last positions of the cache itself. None: min(512, n).
    start: tokens of the text that are left out before the cache. Positions count from 0 wherever it starts.
    """

    model: str
    text: str
    n: int
    queries: int
    calibration: int | None = None
    start: int = 0

    def __post_init__(self) -> None:
        for name, least in (("n", 1), ("queries", 1), ("calibration", 1), ("start", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.calibration is not None and self.calibration > self.n:
            raise ValueError(f"calibration = {self.calibration} positions of a cache of n = {self.n}; ask for fewer")
        if "/" not in self.model and not Path(self.model).is_dir():
            check_name(self.model, [*PACKAGED, TINY, "owner/name of a hub model"], "model")

    @property
    def calibrated(self) -> int:
        """Returns the number of calibration positions, resolved."""
        return min(CALIBRATION, self.n) if self.calibration is None else self.calibration

    def layer_file(self, layer: int) -> Path:
        return self.folder() / f"layer_{layer:02d}.safetensors"

    def folder(self) -> Path:
        digest = directory_digest(self.model)  # a model that was trained on is another
        model = re.sub(r"[^\w.-]+", "_", self.model) + ("" if digest is None else f"-{digest[:8]}")
        segment = f"n{self.n}-q{self.queries}-c{self.calibrated}-s{self.start}"
        return captures_root() / model / f"{self.text_name()}-{segment}"

    def text_name(self) -> str:
        """Names what the capture is filed under: any text but `britannica` is another once its content changes."""
        if self.model == TINY:
            return "random"
        if self.text == "britannica":
            return self.text
        return f"{Path(self.text).stem}-{_sha256(prose(self.text))[:8]}"

    def identity(self, layer: int) -> dict[str, str]:
        """Returns the metadata that a layer's file must agree with."""
        fields = {**asdict(self), "calibration": self.calibrated, "text": self.text_name(), "layer": layer}
        digest = directory_digest(self.model)
        return {name: str(value) for name, value in fields.items()} | ({} if digest is None else {"files": digest})


def captures_root() -> Path:
    """Returns ATTENTION_CORESETS_CAPTURES, or captures/ in the repository.

    An installed copy has no repository; captures/ is then in the working directory.
    """
    chosen = os.environ.get("ATTENTION_CORESETS_CAPTURES")
    repository = Path(__file__).parents[3]
    return Path(chosen) if chosen else (repository if (repository / "pyproject.toml").exists() else Path()) / "captures"


def capture(source: Source, layers: Iterable[int] | None = None, progress: bool = True) -> dict[int, Path]:
    """Captures the layers that are not on disk yet, in one pass over the text; returns the files of all asked for.

    Without `layers` it takes all, except those with a sliding window shorter than the text, which a line on stderr
    names. A file appears whole or not at all, and a layer is kept as soon as it is computed. Processes that capture the
    same source take turns.

    Raises ValueError for layers, lengths or a model that cannot be captured, or NaN or Inf in what the model computed,
    and OSError where model, text or disk is not to be had.
    """
    folder = source.folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system frees it when the process ends, however it ends
        wanted = sorted(set(layers)) if layers is not None else _known_layers(folder)
        missing = [layer for layer in wanted or () if not source.layer_file(layer).exists()]
        if wanted is None or missing:
            wanted = _run(source, wanted, progress)
    return {layer: source.layer_file(layer) for layer in wanted}


def _known_layers(folder: Path) -> list[int] | None:
    """Returns all layers of the model that can be captured, as a file captured earlier states them."""
    path = next(folder.glob("layer_*.safetensors"), None)
    if path is None:
        return None
    stated = read_metadata(path).get("plain_layers")
    if stated is None:
        raise unusable(path, "it does not say which layers the model has")
    return [int(layer) for layer in stated.split(",")]


def _run(source: Source, wanted: list[int] | None, progress: bool) -> list[int]:
    from tqdm import tqdm

    model, ids, provenance = _model_and_tokens(source)
    count, plain = int(provenance["layers"]), plain_layers(model, ids.shape[-1])
    learn_positions(model.base_model, lambda place: asked_alone(model, plain, place))
    if wanted is None:
        wanted = _announced(source, plain, count)
    if any(not 0 <= layer < count for layer in wanted):
        raise ValueError(f"{source.model} has layers 0 to {count - 1}, got {wanted}")
    missing = [layer for layer in wanted if not source.layer_file(layer).exists()]
    meta = {**provenance, "plain_layers": ",".join(map(str, plain))}
    first = source.n - source.calibrated
    with tqdm(total=len(missing), desc=f"capture {source.model}", unit="layer", disable=not progress) as bar:

        def keep(layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> None:
            tensors = {"keys": keys[:, : source.n], "values": values[:, : source.n]}
            tensors["calibration"], tensors["queries"] = queries.split([source.calibrated, source.queries], dim=1)
            tensors["moved"] = move(model.base_model, tensors["calibration"], source.calibrated, layer)
            save(source.layer_file(layer), tensors, {**meta, "scaling": repr(float(scaling)), **source.identity(layer)})
            bar.update()

        record(model, ids, missing, keep, first=first)
    return wanted


def _announced(source: Source, plain: list[int], count: int) -> list[int]:
    """Returns the layers to capture where all are asked for; a line on stderr says where some are left out."""
    total = source.n + source.queries
    if not plain:
        raise ValueError(f"every layer of {source.model} has a window below n + queries = {total}; ask for less")
    if len(plain) < count:
        shown = ", ".join(map(str, plain))
        line = (
            f"{source.model}: layers {shown} of {count} attend to all {total} tokens; the rest, with a sliding window"
        )
        print(f"{line} shorter than that, are left out", file=sys.stderr)
    return plain


def _model_and_tokens(source: Source):
    """Returns the model, its tokens [1, n + queries], and where both come from."""
    model, tokenizer, origin = load_model(source.model)
    ids, digest = segment(source, model, tokenizer)
    versions = {name: metadata.version(name) for name in ("torch", "transformers")}
    provenance = {"origin": origin, "text_sha256": digest, "layers": str(model.config.num_hidden_layers), **versions}
    return model, ids, provenance


def segment(source: Source, model, tokenizer) -> tuple[Int[Tensor, "1 t"], str]:
    """Returns the source's n + queries tokens and the checksum of the whole text ("none" for random tokens).

    What the tokenizer puts before a text (Gemma: <bos>) comes first wherever in the text the segment starts.

    Raises ValueError where model or text is too short.
    """
    check_positions(source, model.config.max_position_embeddings)
    total = source.n + source.queries
    if tokenizer is None:
        generator = torch.Generator().manual_seed(1)
        ids, digest = torch.randint(model.config.vocab_size, (1, source.start + total), generator=generator), "none"
        before = ids[:, :0]
    else:
        text = prose(source.text)
        ids, digest = tokenizer(text, return_tensors="pt", verbose=False).input_ids, _sha256(text)
        before = ids[:, :1] if ids[0, 0] == tokenizer.bos_token_id else ids[:, :0]
        ids = ids[:, before.shape[-1] :]
    ids = torch.cat([before, ids[:, source.start :]], dim=-1)
    if ids.shape[-1] < total:
        where = f"text {source.text!r} has {ids.shape[-1]} tokens" + (
            f" from {source.start} on" if source.start else ""
        )
        raise ValueError(f"{where}, n + queries = {total}; give a longer text")
    return ids[:, :total], digest


def check_positions(source: Source, limit: int) -> None:
    """Raises ValueError where cache and queries exceed the positions that the model reads."""
    total = source.n + source.queries
    if total > limit:
        raise ValueError(f"n + queries = {total} is above the {limit} positions of {source.model}; ask for fewer")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
