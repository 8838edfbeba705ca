"""One cell of the study, by its task.

Cells of errors need torch and numpy alone, so that they run on a bare GPU machine from a plain dictionary.
"""

from collections.abc import Mapping
from typing import Any

from attention_coresets.study.errors import run_errors


def run_cell(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a cell; `config`: resolved, as `study.config.Study`."""
    if config.get("task", "errors") == "errors":
        return run_errors(config)
    if config["task"] == "hardness":
        from attention_coresets.study.hardness import run_hardness

        return run_hardness(config)
    from attention_coresets.study.language import run_language  # needs transformers

    return run_language(config)
