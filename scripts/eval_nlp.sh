#!/usr/bin/env bash
# The paper's benchmarks that lm-eval judges (the group sft_eval of eval/lm_eval_tasks), of models, one after the other:
#   bash scripts/eval_nlp.sh output/it output/im
#   bash scripts/eval_nlp.sh output/it output/im -- --tasks mmlu gsm8k_cot --num_processes 4
#   bash scripts/eval_nlp.sh output/im -- --local        # files on this machine instead of the hub's data sets
# Results go to RESULTS/MODEL/nlp/BENCHMARK. What is done is not run again, and a stopped run goes on where it was; a failing
# benchmark or model does not stop the rest, and the exit code is then 1. Variable or option: RESULTS, --results (results/eval).
# Arguments after -- go to python -m eval.nlp.run_eval.
set -euo pipefail
# shellcheck source=scripts/sourced/eval_models.sh
source "$(dirname "${BASH_SOURCE[0]}")/sourced/eval_models.sh"
eval_arguments "$@"

# shellcheck disable=SC2317  # eval_each calls it.
benchmarks() {
    .venv/bin/python -m eval.nlp.run_eval --model_name_or_path "$1" --save_dir "$2/nlp" ${flags[@]+"${flags[@]}"}
}
eval_each nlp benchmarks
