#!/usr/bin/env bash
# Sets up, then lints, type-checks and tests, a process a core. Arguments go to pytest, which then runs in one process, as
# tests of time need it: `bash scripts/test.sh -m slow`.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
"$PY" -m ruff check .
"$PY" -m ruff format --check .
"$PY" -m basedpyright --level error
[ $# -gt 0 ] || set -- -n auto
"$PY" -m pytest -q "$@"
