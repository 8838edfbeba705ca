"""What files of the user's own a model's caches come from, so that results of other files are not taken for theirs."""

import hashlib
from functools import cache
from pathlib import Path

from attention_coresets.models.language_models import PACKAGED, TINY, text_file

_TEXTS = ("", "britannica", "code", "manual")  # that come with packages or with Python
_OF_MODELS = (".safetensors", ".bin", ".gguf", ".json", ".model", ".txt", ".jinja", ".py")  # not logs or optimizers


def own_files(model: str, text: str) -> dict[str, str]:
    """Digests of the text and of the model's directory, where these are the user's own files.

    A hub model is known by its name alone. FileNotFoundError where there is no such text.
    """
    digests = {}
    if model != TINY and text not in _TEXTS:
        digests["text"] = _digest_of(text_file(text))[:16]
    if (digest := directory_digest(model)) is not None:
        digests["model"] = digest
    return digests


def directory_digest(model: str) -> str | None:
    """A digest of the files in a model's directory that it is loaded from; None for a model that is none.

    Cost: files are read once a process, a second or so for each GB, unless they change.
    """
    folder = Path(model)
    if model in ("", *PACKAGED, TINY) or not folder.is_dir():
        return None
    files = sorted(path for path in folder.iterdir() if path.suffix in _OF_MODELS and path.is_file())
    return hashlib.sha256("".join(f"{path.name} {_digest_of(path)}\n" for path in files).encode()).hexdigest()[:16]


def _digest_of(path: Path) -> str:
    seen = path.stat()
    return _digest(path.resolve(), seen.st_size, seen.st_mtime_ns)


@cache
def _digest(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
