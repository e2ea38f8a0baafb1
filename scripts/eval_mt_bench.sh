#!/usr/bin/env bash
# MT-Bench of models, one after the other; ends with a table for each judge, and a picture by category of several models.
#   bash scripts/eval_mt_bench.sh [--results DIR] output/it output/im
#   bash scripts/eval_mt_bench.sh output/im -- --yes --judge_base_url http://127.0.0.1:8000/v1 --judge_model judge
#   bash scripts/eval_mt_bench.sh output/it output/im -- --no_judge                              # the answers alone
# Variables: RESULTS (results/eval). Arguments after -- go to python -m eval.mt_bench.run_eval.
# The same command goes on where it was stopped. A failing model does not stop the rest; the exit code is then 1.
set -euo pipefail
# shellcheck source=scripts/sourced/eval_models.sh
source "$(dirname "${BASH_SOURCE[0]}")/sourced/eval_models.sh"
eval_arguments "$@"

# shellcheck disable=SC2317  # eval_each calls it.
one_model() {
    .venv/bin/python -m eval.mt_bench.run_eval --model_name_or_path "$1" --save_dir "$2" ${flags[@]+"${flags[@]}"}
}

code=0
eval_each mt_bench one_model || code=$?

# The questions' categories come from the data folder that the models were asked from.
questions=()
for ((at = 0; at + 1 < ${#flags[@]}; at++)); do
    if [[ ${flags[at]} == --data_dir ]]; then questions=(--question_file "${flags[at + 1]}/question.jsonl"); fi
done

# A table for each judge: its scores do not compare with another's.
declare -A shown=()
for model in "${models[@]}"; do
    for file in "$RESULTS/${model##*/}"/mt_bench*/model_judgment/*.jsonl; do
        judge=${file#"$RESULTS/${model##*/}/"}
        if [[ ! -f $file || -n ${shown[$judge]:-} ]]; then continue; fi
        shown[$judge]=1
        files=()
        for other in "${models[@]}"; do
            if [[ -f $RESULTS/${other##*/}/$judge ]]; then files+=("$RESULTS/${other##*/}/$judge"); fi
        done
        figure=()
        name=${judge##*/}
        if ((${#files[@]} > 1)) && [[ $judge == *_single.jsonl ]]; then
            figure=(--figure "$RESULTS/${judge%%/*}_${name%.jsonl}.png")
        fi
        printf '\n== %s: %s\n' "${judge%%/*}" "${name%.jsonl}"
        # Judgments that are too few were an error of their model above; the table is shown all the same.
        .venv/bin/python -m eval.mt_bench.show_results --judgments "${files[@]}" ${questions[@]+"${questions[@]}"} ${figure[@]+"${figure[@]}"} || code=1
    done
done
exit "$code"
