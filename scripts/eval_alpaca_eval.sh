#!/usr/bin/env bash
# AlpacaEval 1 and 2 of models, one after the other; ends with a table. Answers are generated once for both.
#   bash scripts/eval_alpaca_eval.sh [--results DIR] output/it output/im
#   bash scripts/eval_alpaca_eval.sh output/im -- --yes --judge_base_url http://127.0.0.1:8000/v1 --judge_model judge
#   IS_ALPACA_EVAL_2=False bash scripts/eval_alpaca_eval.sh output/im        # AlpacaEval 1 alone; True: 2 alone
#   bash scripts/eval_alpaca_eval.sh output/it output/im -- --no_evaluate_with_llm        # the answers alone
# Variables: RESULTS (results/eval), CHAT_FORMATTING_FUNCTION (default: the checkpoint's own chat format; the authors':
# eval.templates.create_prompt_with_tulu_chat_format). Arguments after -- go to python -m eval.alpaca_farm.run_eval.
# The same command goes on where it was stopped. A failing model does not stop the rest; the exit code is then 1.
set -euo pipefail
# shellcheck source=scripts/sourced/eval_models.sh
source "$(dirname "${BASH_SOURCE[0]}")/sourced/eval_models.sh"
eval_arguments "$@"
if [[ -n ${IS_ALPACA_EVAL_2:-} ]]; then benchmarks=("$IS_ALPACA_EVAL_2"); else benchmarks=(False True); fi

# shellcheck disable=SC2317  # eval_each calls it.
one_model() {
    local two code worst=0
    for two in "${benchmarks[@]}"; do
        printf '== IS_ALPACA_EVAL_2=%s\n' "$two"
        code=0
        IS_ALPACA_EVAL_2=$two .venv/bin/python -m eval.alpaca_farm.run_eval --model_name_or_path "$1" --save_dir "$2" --use_chat_format \
            ${CHAT_FORMATTING_FUNCTION:+--chat_formatting_function "$CHAT_FORMATTING_FUNCTION"} ${flags[@]+"${flags[@]}"} || code=$?
        # Stopped by the user.
        if ((code == 130 || code == 143)); then return "$code"; fi
        if ((code)); then worst=$code; fi
    done
    return "$worst"
}

code=0
eval_each alpaca_eval one_model || code=$?
folders=()
for model in "${models[@]}"; do folders+=("$RESULTS/${model##*/}"); done
echo
.venv/bin/python -m eval.alpaca_farm.show_results "${folders[@]}"
exit "$code"
