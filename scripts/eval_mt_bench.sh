#!/usr/bin/env bash
# MT-Bench of models, one after the other; ends with a table of turns.
#   bash scripts/eval_mt_bench.sh output/it output/im
#   bash scripts/eval_mt_bench.sh output/im -- --yes --judge_base_url http://127.0.0.1:8000/v1 --judge_model judge
#   bash scripts/eval_mt_bench.sh output/it output/im -- --no_judge                              # the answers alone
# Variables: RESULTS (results/eval). Arguments after -- go to python -m eval.mt_bench.run_eval.
# The same command goes on where it was stopped. A failing model does not stop the rest; the exit code is then 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/sourced/eval_models.sh
source scripts/sourced/eval_models.sh
eval_arguments "$@"

# shellcheck disable=SC2317  # eval_each calls it.
one_model() {
    .venv/bin/python -m eval.mt_bench.run_eval --model_name_or_path "$1" --save_dir "$2" ${flags[@]+"${flags[@]}"}
}

code=0
eval_each mt_bench one_model || code=$?
for model in "${models[@]}"; do
    for judgments in "$RESULTS/${model##*/}"/mt_bench/model_judgment/*_single.jsonl; do
        if [[ -f $judgments ]]; then .venv/bin/python -m eval.mt_bench.show_results --judgments "$judgments"; fi
    done
done
exit "$code"
