"""The KV cache of one head of a real language model, centred and scaled so that its keys lie in the unit ball."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from attention_coresets.caches.directions import Vectors
from attention_coresets.checks import not_negative
from attention_coresets.models.capture import Source, capture, check_positions
from attention_coresets.models.capture_files import read_file, unusable
from attention_coresets.models.heads import RealHead, real_head
from attention_coresets.models.language_models import SHAPES, Shape


@dataclass(frozen=True)
class Model:
    """n tokens of a text in one layer and KV head of a language model, captured at first use.

    n: tokens, in the order of the text unless shuffled.
    model, text, queries, calibration, start: as in `Source` of capture.py. `load_head` returns the queries of the
        cache's last positions, for calibration, and those of later ones, held out.
    layer, kv_head: which head.
    shuffle: `make_cache` shuffles the tokens. False keeps them in order: then token 0 is the first, the usual attention
        sink.
    d: if given, must be the model's head dimension.
    """

    n: int = 4096
    model: str = "smollm2-135m"
    text: str = "britannica"
    layer: int = 0
    kv_head: int = 0
    queries: int = 1024
    calibration: int | None = None
    start: int = 0
    shuffle: bool = True
    d: int | None = None

    def __post_init__(self) -> None:
        source = self.source  # refuses a wrong model name or length before any work
        not_negative(layer=self.layer, kv_head=self.kv_head)
        if (shape := SHAPES.get(self.model)) is not None:
            _check_shape(self, source, shape)

    @property
    def source(self) -> Source:
        return Source(self.model, self.text, self.n, self.queries, self.calibration, self.start)

    def sample(self, rng: np.random.Generator) -> tuple[Vectors, Vectors]:
        """Returns keys ``[n, d]`` and values ``[n, d]`` in the order of the text; nothing is drawn from `rng`.

        Keys are centred at their mean and divided by R_K = max |k_i - mean|; values likewise. Raises as `load_head`.
        """
        cache = load_head(self).cache
        return cache.keys.numpy(), cache.values.numpy()


@dataclass(frozen=True)
class LayerCapture:
    """One layer of a capture, float32 as the model computed it; query head h belongs to KV head h // (heads // kv).

    queries: of positions after the cache.
    calibration: of the cache's last c positions.
    moved: the latter as if they were asked at the c positions after the cache.
    scaling: logits are scaling * <q, k>.
    path: the file.
    """

    keys: Float[Tensor, "kv n d"]
    values: Float[Tensor, "kv n dv"]
    queries: Float[Tensor, "heads q d"]
    calibration: Float[Tensor, "heads c d"]
    moved: Float[Tensor, "heads c d"]
    scaling: float
    path: Path


def load_head(parameters: Model) -> RealHead:
    """Loads the head's normalised cache in text order and its queries in the same units, float64.

    Captures the model first where that is not done yet.

    Raises ValueError for a layer or KV head that the model does not have, a `d` other than its head dimension, or a
    capture that is corrupt or of something else.
    """
    layer = read_layer(parameters.source, parameters.layer)
    heads, d = layer.keys.shape[0], layer.keys.shape[-1]
    _check_head(parameters, heads, d)
    kv_head = parameters.kv_head
    asked = (
        x.unflatten(0, (heads, -1))[kv_head] for x in (layer.calibration, layer.moved, layer.queries)
    )  # [heads // kv, c or q, d]
    return real_head(layer.keys[kv_head], layer.values[kv_head], *asked, scaling=layer.scaling)


def _check_head(parameters: Model, heads: int, d: int) -> None:
    if parameters.kv_head >= heads:
        raise ValueError(f"{parameters.model} has KV heads 0 to {heads - 1}, got kv_head = {parameters.kv_head}")
    if parameters.d not in (None, d):
        raise ValueError(f"d = {parameters.d}, but {parameters.model} has heads of dimension {d}; leave d out")


def _check_shape(parameters: Model, source: Source, shape: Shape) -> None:
    """Raises ValueError for what a model of this shape does not have."""
    _check_head(parameters, shape.kv_heads, shape.d)
    check_positions(source, shape.positions)
    if parameters.layer >= shape.layers:
        raise ValueError(f"{parameters.model} has layers 0 to {shape.layers - 1}, got layer = {parameters.layer}")


def read_layer(source: Source, layer: int) -> LayerCapture:
    """Reads one captured layer and verifies its checksum; the model runs only where the layer's file is not there.

    Raises ValueError, naming the file and the remedy, where it is damaged or holds something else than asked for.
    """
    path = source.layer_file(layer)
    if not path.exists():
        files = capture(source)  # all layers: they cost the same one forward
        if layer not in files:
            raise ValueError(f"{source.model} has {_named(list(files))}, got layer = {layer}")
    tensors, meta = read_file(path)
    for name, value in source.identity(layer).items():
        if meta.get(name) != value:
            raise unusable(path, f"{name} is {meta.get(name)}, not {value}")
    return LayerCapture(**tensors, scaling=float(meta["scaling"]), path=path)


def _named(layers: list[int]) -> str:
    if layers == list(range(len(layers))):
        return f"layers 0 to {len(layers) - 1}"
    return f"full attention in layers {', '.join(map(str, layers))}"
