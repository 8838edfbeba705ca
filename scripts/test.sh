#!/usr/bin/env bash
# Sets up, then lints, type-checks and tests. Arguments go to pytest: `bash scripts/test.sh -m slow`.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
"$PY" -m ruff check .
"$PY" -m ruff format --check .
"$PY" -m basedpyright --level error
"$PY" -m pytest -q "$@"
