"""One cell of the study, by its task.

Cells of errors need torch and numpy alone, so that they run on a bare GPU machine from a plain dictionary.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

# loaded when they are asked for: a language cell needs transformers
TASKS = {
    "errors": "attention_coresets.study.errors",
    "structured": "attention_coresets.study.structured",
    "hardness": "attention_coresets.study.hardness",
    "language": "attention_coresets.study.language",
    "replayed": "attention_coresets.study.replayed",
}
READING = ("language", "replayed")  # what a model makes of a text is kept for other cells on that text


def run_cell(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a cell; `config`: resolved, as `study.config.Study`. Each task's module has a function `run_cell`."""
    return import_module(TASKS[config.get("task", "errors")]).run_cell(config)
