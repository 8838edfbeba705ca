#!/usr/bin/env bash
# Everything that wants a GPU, the most valuable first, on a bare machine: a python3 with torch, and no network.
#
#   bash scripts/gpu.sh                     # at most 7 minutes; results in benchmarks/results
#   bash scripts/gpu.sh --results FOLDER    # elsewhere
#   bash scripts/gpu.sh --smoke             # the same steps on the CPU at tiny sizes, in a minute: shows that all runs
#
# Each step has a limit of its own, and what it finds is in FOLDER/gpu.jsonl at once. A step that fails or takes too long
# is recorded, and the next one runs. The table at the end comes from that file:
#   python3 -m benchmarks.gpu table --results FOLDER    makes it anew where a run was cut short.
# Wheels in .whl/ (beartype, for the shape checks) are used where they are there; nothing of them is needed.
# PYTHON names another interpreter; ATTENTION_CORESETS_REVISION the commit, where the code was copied without git.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PY=${PYTHON:-python3} tier=full device=cuda results=benchmarks/results
while [ $# -gt 0 ]; do
  case $1 in
    --smoke) tier=smoke device=cpu ;;
    --results) results=${2:?--results needs a folder}; shift ;;
    *) echo "gpu.sh: unknown option $1; known: --smoke, --results FOLDER" >&2; exit 2 ;;
  esac
  shift
done
total=395 # seconds for the steps: the table fits into 7 minutes too
[ $tier = full ] || total=$((4 * total)) # other work may share the CPU
mkdir -p "$results"
journal=$results/gpu.jsonl log=$results/gpu.log
[ $tier = full ] || journal=$results/gpu.$tier.jsonl log=$results/gpu.$tier.log
: >"$journal"
: >"$log"
[ $tier = full ] || export TRITON_INTERPRET=1 # Triton's kernels on the CPU, where triton is installed
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}"
if compgen -G ".whl/*.whl" >/dev/null; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$PY" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" .whl/*.whl &&
    PYTHONPATH="$PYTHONPATH:$site"
fi

ended() { # STEP CODE SECONDS WORDS: one line of the journal
  printf '{"step": "%s", "kind": "ended", "content": {"code": %s, "seconds": %s, "words": "%s"}}\n' "$@" >>"$journal"
}

step() { # STEP LIMIT COMMAND...: runs it for LIMIT seconds at most; its exit code is $code
  local name=$1 limit=$2 left=$((total - SECONDS)) start=$SECONDS said=""
  shift 2
  code=0
  [ $tier = full ] || limit=$((4 * limit))
  if [ "$left" -lt 5 ]; then
    ended "$name" null 0 "not run: no time was left"
    return
  fi
  [ "$limit" -le "$left" ] || limit=$left
  echo "== $name (at most $limit s)" | tee -a "$log"
  timeout -k 5 "$limit" "$@" 2>&1 | tee -a "$log"
  code=${PIPESTATUS[0]}
  [[ $name != *tests && $name != triton ]] || said=$(tail -n 1 "$log" | tr -cd '[:alnum:] ,.:=') # pytest's last line
  ended "$name" "$code" $((SECONDS - start)) "$said"
}

measure() { step "$1" "$2" "$PY" -m benchmarks.gpu "$1" --tier "$tier" --device "$device" --results "$results"; }
pytest() { # STEP LIMIT ARGUMENTS...; other versions than ours may warn of other things
  local name=$1 limit=$2
  shift 2
  step "$name" "$limit" "$PY" -m pytest -v -m gpu -W default -p no:cacheprovider "$@"
}

measure device 40
[ "$code" -ne 3 ] || exit 2 # no CUDA device, as its line says
pytest tests 120 tests --ignore=tests/test_triton.py
pytest triton 60 tests/test_triton.py
measure kernels 40
measure walks 80
measure halvings 30
measure ascents 30
measure certificates 40
measure refinements 50
measure cells 60
measure llama 30
measure profiles 25
timeout 25 "$PY" -m benchmarks.gpu table --tier "$tier" --results "$results" | tee -a "$log"
exit "${PIPESTATUS[0]}"
