#!/usr/bin/env bash
# HumanEval of models, one after the other, at the paper's two temperatures and without a chat format, as the authors' README does it.
#   bash scripts/eval_humaneval.sh output/it output/im
#   bash scripts/eval_humaneval.sh output/im -- --use_vllm
#   TEMPERATURES="0.1" SAMPLES=1 PASS_AT_KS="1" bash scripts/eval_humaneval.sh --results results/quick output/im -- --use_chat_format
# Results go to RESULTS/MODEL/humaneval_tT. Variables: RESULTS or --results DIR (results/eval), TEMPERATURES ("0.1 0.7"), SAMPLES a
# task (20), PASS_AT_KS ("1 10"). Arguments after -- go to python -m eval.codex_humaneval.run_eval.
# The same command goes on where it was stopped and keeps what is done. A failing model does not stop the rest; the exit code is then 1.
set -euo pipefail
# shellcheck source=scripts/sourced/eval_models.sh
source "$(dirname "${BASH_SOURCE[0]}")/sourced/eval_models.sh"
: "${TEMPERATURES:=0.1 0.7}" "${SAMPLES:=20}" "${PASS_AT_KS:=1 10}"
eval_arguments "$@"
read -ra temperatures <<<"$TEMPERATURES"
read -ra ks <<<"$PASS_AT_KS"

# shellcheck disable=SC2317  # eval_each calls it.
one_model() {
    local temperature folder code=0 result=0
    for temperature in "${temperatures[@]}"; do
        folder="$2/humaneval_t$temperature"
        echo "temperature $temperature"
        code=0
        .venv/bin/python -m eval.codex_humaneval.run_eval --model_name_or_path "$1" --save_dir "$folder" --temperature "$temperature" \
            --top_p 0.95 --unbiased_sampling_size_n "$SAMPLES" --eval_pass_at_ks "${ks[@]}" ${flags[@]+"${flags[@]}"} || code=$?
        # Stopped by the user: the other temperatures are not meant to run either.
        if ((code == 130 || code == 143)); then return "$code"; fi
        if ((code)); then result=$code; fi
    done
    return "$result"
}

eval_each humaneval one_model
