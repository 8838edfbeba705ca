"""Run a language model over prose once and keep each layer's post-RoPE keys, values and queries on disk.

One forward of n + queries tokens: the cache is the first n, the queries are those of the later positions. One
safetensors file a layer, float32 exactly as the model computed it, with provenance and a checksum, under `captures/` in
the repository or where ATTENTION_CORESETS_CAPTURES points. SmolLM2-135M at 4096 + 1024 tokens: 1.3 GB of memory at the
peak, 260 MB on disk. Needs transformers and safetensors (the `models` extra), imported only when something runs.
"""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.caches.language_models import PACKAGED, TINY, load_model, prose
from attention_coresets.registry import check_name

_INTERFACE = "attention_coresets_capture"
_ALTERED_SOFTMAX = ("softcap", "s_aux", "position_bias")  # attention that plain keys and queries do not reproduce

# keep(layer, queries [heads, t, d], keys [kv, t, d], values [kv, t, dv], scaling)
Keep = Callable[[int, Tensor, Tensor, Tensor, float], None]


@dataclass(frozen=True)
class Source:
    """What one capture holds: a model, a text, n cache tokens and the number of later positions whose queries are kept.

    model: `smollm2-135m`, `tiny-random`, or a hub model (owner/name) or its directory. text: `britannica` or a path.
    """

    model: str
    text: str
    n: int
    queries: int

    def __post_init__(self) -> None:
        for name, least in (("n", 1), ("queries", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if "/" not in self.model and not Path(self.model).is_dir():
            check_name(self.model, [*PACKAGED, TINY, "owner/name of a hub model"], "model")

    def layer_file(self, layer: int) -> Path:
        return self.folder() / f"layer_{layer:02d}.safetensors"

    def folder(self) -> Path:
        model = re.sub(r"[^\w.-]+", "_", self.model)
        return captures_root() / model / f"{self.text_name()}-n{self.n}-q{self.queries}"

    def text_name(self) -> str:
        """What the capture is filed under: a text file counts as another text once its content changes."""
        if self.model == TINY:
            return "random"
        if self.text == "britannica":
            return self.text
        return f"{Path(self.text).stem}-{_sha256(prose(self.text))[:8]}"

    def identity(self, layer: int) -> dict[str, str]:
        """The metadata that a layer's file must agree with."""
        fields = {**asdict(self), "text": self.text_name(), "layer": layer}
        return {name: str(value) for name, value in fields.items()}


def captures_root() -> Path:
    """ATTENTION_CORESETS_CAPTURES, or captures/ in the repository (in the working directory for an installed copy)."""
    chosen = os.environ.get("ATTENTION_CORESETS_CAPTURES")
    repository = Path(__file__).parents[3]
    return Path(chosen) if chosen else (repository if (repository / "pyproject.toml").exists() else Path()) / "captures"


def capture(source: Source, layers: Iterable[int] | None = None, progress: bool = True) -> list[Path]:
    """Capture the layers (default: all) that are not on disk yet, in one forward; the files of all layers asked for.

    A file appears whole or not at all, and a layer is kept as soon as it is computed. Processes that capture the same
    source take turns. Raises ValueError for layers, lengths or a model that cannot be captured, or NaN/Inf in what the
    model computed, and OSError where model, text or disk is not to be had.
    """
    folder = source.folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system frees it when the process ends, however it ends
        wanted = sorted(set(layers)) if layers is not None else _known_layers(folder)
        missing = [layer for layer in wanted or () if not source.layer_file(layer).exists()]
        if wanted is None or missing:
            wanted = _run(source, wanted, progress)
    return [source.layer_file(layer) for layer in wanted]


def _known_layers(folder: Path) -> list[int] | None:
    """All layers of the model, as a file captured earlier states their number."""
    path = next(folder.glob("layer_*.safetensors"), None)
    return None if path is None else list(range(int(read_file(path)[1]["layers"])))


def _run(source: Source, wanted: list[int] | None, progress: bool) -> list[int]:
    from tqdm import tqdm

    model, ids, provenance = _model_and_tokens(source)
    count = int(provenance["layers"])
    wanted = list(range(count)) if wanted is None else wanted
    if any(not 0 <= layer < count for layer in wanted):
        raise ValueError(f"{source.model} has layers 0 to {count - 1}, got {wanted}")
    missing = [layer for layer in wanted if not source.layer_file(layer).exists()]
    with tqdm(total=len(missing), desc=f"capture {source.model}", unit="layer", disable=not progress) as bar:

        def keep(layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> None:
            tensors = {"keys": keys[:, : source.n], "values": values[:, : source.n], "queries": queries[:, source.n :]}
            _save(source, layer, tensors, {**provenance, "scaling": repr(float(scaling))})
            bar.update()

        record(model, ids, missing, keep)
    return wanted


def record(model, ids: Int[Tensor, "1 t"], layers: Iterable[int], keep: Keep) -> None:
    """Run the decoder over the tokens and hand `keep` what the attention of each of these layers gets.

    Only the decoder runs, so no tokens x vocabulary logits are built. ValueError for attention that a softmax over all
    earlier keys does not describe (sliding windows shorter than the text, soft caps, extra sink logits).
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    wanted = set(layers)

    def attention(module, query, key, value, attention_mask, **options):
        _refuse_other_attention(module.layer_idx, key.shape[-2], options, module.layer_idx in wanted)
        if module.layer_idx in wanted:
            keep(module.layer_idx, query[0], key[0], value[0], options["scaling"])
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)

    AttentionInterface.register(_INTERFACE, attention)
    AttentionMaskInterface.register(_INTERFACE, sdpa_mask)  # an unknown name would silently get no causal mask
    model.set_attn_implementation(_INTERFACE)
    with torch.no_grad():
        model.base_model(input_ids=ids, use_cache=False)


def _refuse_other_attention(layer: int, tokens: int, options: Mapping, wanted: bool) -> None:
    altered = [name for name in _ALTERED_SOFTMAX if options.get(name) is not None]
    window = options.get("sliding_window")
    if wanted and window is not None and window < tokens:
        altered.append(f"sliding_window = {window} < {tokens} tokens")
    if altered:
        raise ValueError(f"layer {layer} has attention other than a plain softmax ({', '.join(altered)}); leave it out")


def _model_and_tokens(source: Source):
    """The model, its tokens [1, n + queries], and where both come from."""
    model, tokenizer, origin = load_model(source.model)
    total, limit = source.n + source.queries, model.config.max_position_embeddings
    if total > limit:
        raise ValueError(f"n + queries = {total} is above the {limit} positions of {source.model}; ask for fewer")
    if tokenizer is None:
        generator = torch.Generator().manual_seed(1)
        ids, digest = torch.randint(model.config.vocab_size, (1, total), generator=generator), "none"
    else:
        text = prose(source.text)
        ids, digest = tokenizer(text, return_tensors="pt", verbose=False).input_ids, _sha256(text)
    if ids.shape[-1] < total:
        raise ValueError(f"text {source.text!r} has {ids.shape[-1]} tokens, n + queries = {total}; give a longer text")
    versions = {name: metadata.version(name) for name in ("torch", "transformers")}
    provenance = {"origin": origin, "text_sha256": digest, "layers": str(model.config.num_hidden_layers), **versions}
    return model, ids[:, :total], provenance


def _save(source: Source, layer: int, tensors: dict[str, Tensor], provenance: Mapping[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{source.model} layer {layer}: {name} hold NaN or Inf; nothing is kept of this layer")
    meta = {**provenance, **source.identity(layer)}
    path = source.layer_file(layer)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, scratch, metadata={**meta, "sha256": checksum(tensors, meta)})
        os.replace(scratch, path)
    except (OSError, SafetensorError) as error:
        remedy = "free space, or set ATTENTION_CORESETS_CAPTURES to another directory"
        raise OSError(f"cannot write capture {path}: {error}; {remedy}") from error
    finally:
        scratch.unlink(missing_ok=True)


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a captured layer; ValueError naming the file and the remedy where it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in ("keys", "values", "queries")}
            meta = file.metadata() or {}
    except SafetensorError as error:
        raise unusable(path, str(error)) from error
    found = checksum(tensors, {name: value for name, value in meta.items() if name != "sha256"})
    if meta.get("sha256") != found:
        raise unusable(path, f"sha256 is {found}, not {meta.get('sha256')}")
    return tensors, meta


def unusable(path: Path, reason: str) -> ValueError:
    """The one line that a damaged or mismatched capture is refused with."""
    reason = reason.replace("\n", " ")
    return ValueError(f"capture {path} is unusable: {reason}; delete the file and rerun scripts/capture.py")


def checksum(tensors: Mapping[str, Float[Tensor, "..."]], meta: Mapping[str, str]) -> str:
    """sha256 over the tensors' names, shapes and bytes and over the metadata."""
    digest = hashlib.sha256(json.dumps(dict(sorted(meta.items()))).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
