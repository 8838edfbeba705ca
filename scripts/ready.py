"""Comes first in every script: says in one line what is not set up, and lets output be printed in any locale."""

import importlib.util
import io
import sys

_SETUP = "in the repository run: bash scripts/setup.sh && source .venv/bin/activate"


def check(modules=("torch", "pandas", "hydra", "attention_coresets")):
    """Exits, with one line and code 1, unless this Python is new enough and has these modules."""
    if sys.version_info < (3, 11):  # noqa: UP036 (whoever runs this may have another Python)
        sys.exit(f"error: Python {sys.version.split()[0]} is older than 3.11; {_SETUP}")
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        sys.exit(f"error: {sys.executable} has no {', '.join(absent)}; {_SETUP}")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has no rho gets \u03c1, not a crash


check()
