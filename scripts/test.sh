#!/usr/bin/env bash
# Sets up, then lints, type-checks and tests, a process a core. Arguments go to pytest, which then runs in one process, as
# tests of time need it: `bash scripts/test.sh -m slow`.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
unset PYTHONDONTWRITEBYTECODE # tests start many processes, and each would compile all that it imports
"$PY" -m ruff check .
"$PY" -m ruff format --check .
"$PY" -m basedpyright --level error
if [ $# -eq 0 ]; then
  set -- -n auto
  export OMP_NUM_THREADS=1 # a process a core: threads of its own would only be in the others' way
fi
"$PY" -m pytest -q "$@"
