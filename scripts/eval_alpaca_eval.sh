#!/usr/bin/env bash
# AlpacaEval 1 and 2 of models, one after the other; ends with a table. Answers are generated once for both.
#   bash scripts/eval_alpaca_eval.sh output/it output/im
#   bash scripts/eval_alpaca_eval.sh output/im -- --yes --judge_base_url http://127.0.0.1:8000/v1 --judge_model judge
#   IS_ALPACA_EVAL_2=False bash scripts/eval_alpaca_eval.sh output/im        # AlpacaEval 1 alone; True: 2 alone
#   bash scripts/eval_alpaca_eval.sh output/it output/im -- --no_evaluate_with_llm        # the answers alone
# Variables: RESULTS (results/eval), CHAT_FORMATTING_FUNCTION (default: the checkpoint's own chat format; the authors':
# eval.templates.create_prompt_with_tulu_chat_format). Arguments after -- go to python -m eval.alpaca_farm.run_eval.
# The same command goes on where it was stopped. A failing model does not stop the rest; the exit code is then 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${RESULTS:=results/eval}" "${CHAT_FORMATTING_FUNCTION:=}"

models=()
while (($#)) && [[ $1 != -- ]]; do
    models+=("${1%/}")
    shift
done
(($#)) && shift
if ((${#models[@]} == 0)); then
    echo "usage: bash scripts/eval_alpaca_eval.sh MODEL... [-- flags of eval.alpaca_farm.run_eval]" >&2
    exit 2
fi
if [[ -n ${IS_ALPACA_EVAL_2:-} ]]; then benchmarks=("$IS_ALPACA_EVAL_2"); else benchmarks=(False True); fi
[[ -x .venv/bin/python ]] || bash scripts/setup.sh --no_model

failed=()
folders=()
for model in "${models[@]}"; do
    folder="$RESULTS/${model##*/}"
    folders+=("$folder")
    for two in "${benchmarks[@]}"; do
        echo "== $model, IS_ALPACA_EVAL_2=$two"
        code=0
        IS_ALPACA_EVAL_2=$two .venv/bin/python -m eval.alpaca_farm.run_eval --model_name_or_path "$model" --save_dir "$folder" \
            --use_chat_format ${CHAT_FORMATTING_FUNCTION:+--chat_formatting_function "$CHAT_FORMATTING_FUNCTION"} "$@" || code=$?
        # Stopped by the user.
        if ((code == 130)); then exit 130; fi
        if ((code)); then failed+=("$model (IS_ALPACA_EVAL_2=$two)"); fi
    done
done

echo
.venv/bin/python -m eval.alpaca_farm.show_results "${folders[@]}"
if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
