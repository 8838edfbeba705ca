"""Says in one line where transformers is missing or too old for what models do here."""

import re
from importlib import metadata

OLDEST = (5, 17)  # tried: the tests of serving pass; 5.0 hands a cache's layers other arguments


def check_transformers() -> None:
    """Raises ImportError where transformers is not installed, or older than 5.17."""
    remedy = 'pip install "attention-coresets[models]"'
    try:
        found = metadata.version("transformers")
    except metadata.PackageNotFoundError as error:
        raise ImportError(f"language models need transformers, which is not installed; {remedy}") from error
    if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ImportError(f"transformers {found} is too old for language models on coresets, {oldest} is not; {remedy}")
