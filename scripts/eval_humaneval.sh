#!/usr/bin/env bash
# HumanEval of models, at the paper's two temperatures, without a chat format as the authors' README does it:
#   bash scripts/eval_humaneval.sh output/it output/im
# Results go to RESULTS/MODEL/humaneval_tT. What is there is not run again, a stopped run goes on, and a failing model does not
# stop the rest. Variables: RESULTS (results/eval), TEMPERATURES ("0.1 0.7"), SAMPLES (20), PASS_AT_KS ("1 10"), PYTHON.
# Arguments behind -- go to eval.codex_humaneval.run_eval (-- --use_vllm, -- --use_chat_format, ...).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${RESULTS:=results/eval}" "${TEMPERATURES:=0.1 0.7}" "${SAMPLES:=20}" "${PASS_AT_KS:=1 10}"
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi
read -ra temperatures <<<"$TEMPERATURES"
read -ra ks <<<"$PASS_AT_KS"

models=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    models+=("$1")
    shift
done
if [ $# -gt 0 ]; then shift; fi
if [ ${#models[@]} -eq 0 ]; then
    echo "usage: bash scripts/eval_humaneval.sh MODEL... [-- flags of eval.codex_humaneval.run_eval]" >&2
    exit 2
fi

failed=()
for model in "${models[@]}"; do
    for temperature in "${temperatures[@]}"; do
        folder="$RESULTS/$(basename "$model")/humaneval_t$temperature"
        if [ -f "$folder/results.json" ]; then
            echo "[humaneval] $folder/results.json is there; not run again"
            continue
        fi
        echo "[humaneval] $model at temperature $temperature"
        if ! "$PYTHON" -m eval.codex_humaneval.run_eval --model_name_or_path "$model" --save_dir "$folder" \
            --temperature "$temperature" --top_p 0.95 --unbiased_sampling_size_n "$SAMPLES" --eval_pass_at_ks "${ks[@]}" "$@"; then
            failed+=("$model at $temperature")
        fi
    done
done
if [ ${#failed[@]} -gt 0 ]; then
    printf '[humaneval] failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
