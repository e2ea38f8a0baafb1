#!/usr/bin/env bash
# The paper's whole evaluation of models: lm-eval's tasks, HumanEval, MT-Bench, AlpacaEval 1 and 2, and then the paper's table.
#   bash scripts/eval_all.sh output/it output/im
#   bash scripts/eval_all.sh --no_judge output/im                          # nothing that is paid for: the judged parts only answer
#   bash scripts/eval_all.sh --judge_base_url http://127.0.0.1:8000/v1 --judge_model judge --yes output/im
#   bash scripts/eval_all.sh --parts nlp,humaneval output/im -- --per_task --aggregation corrected
# Options, before the models: --results DIR (RESULTS, results/eval), --parts (nlp,humaneval,mt_bench,alpaca_eval), --no_judge,
# --judge_model NAME, --judge_base_url URL, --yes (pay what the judge costs), --dry_run (print the
# commands, about what they take and cost, and what is not prepared). What follows -- goes to
# src/collect_results.py. Words for a part's own flags: NLP_FLAGS, HUMANEVAL_FLAGS, MT_BENCH_FLAGS, ALPACA_EVAL_FLAGS, and
# EVAL_FLAGS for the last three (EVAL_FLAGS="--use_vllm").
# Models are found where this is called and in the repository; a relative DIR is the repository's.
# The same command goes on where it was stopped. A part that fails does not stop the rest; the exit code is then 1.
set -euo pipefail
# shellcheck source=scripts/sourced/from_anywhere.sh
source "$(dirname "${BASH_SOURCE[0]}")/sourced/from_anywhere.sh"
: "${RESULTS:=results/eval}" "${NLP_FLAGS:=}" "${HUMANEVAL_FLAGS:=}" "${MT_BENCH_FLAGS:=}" "${ALPACA_EVAL_FLAGS:=}" "${EVAL_FLAGS:=}"

refuse() {
    printf 'error: %s\nusage: bash scripts/eval_all.sh [OPTIONS] MODEL... [-- flags of src/collect_results.py]\n' "$*" >&2
    exit 2
}

parts=(nlp humaneval mt_bench alpaca_eval)
models=()
judge=()
no_judge=''
dry_run=''
while (($#)) && [[ $1 != -- ]]; do
    case $1 in
        --results | --parts | --judge_model | --judge_base_url)
            (($# > 1)) || refuse "$1 needs a value"
            case $1 in
                --results) RESULTS=${2%/} ;;
                --parts) IFS=, read -ra parts <<<"$2" ;;
                *) judge+=("$1" "$2") ;;
            esac
            shift
            ;;
        --yes) judge+=(--yes) ;;
        --no_judge) no_judge=1 ;;
        --dry_run) dry_run=1 ;;
        -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' scripts/eval_all.sh; exit 0 ;;
        -*) refuse "$1: no such option (a part's own flags go into NLP_FLAGS, HUMANEVAL_FLAGS, MT_BENCH_FLAGS, ALPACA_EVAL_FLAGS)" ;;
        *) models+=("$(as_given "${1%/}")") ;;
    esac
    shift
done
(($#)) && shift
((${#models[@]})) || refuse "no model is given"
say_where "$RESULTS"
((${#parts[@]})) || refuse "--parts names no part"
for part in "${parts[@]}"; do
    [[ $part == @(nlp|humaneval|mt_bench|alpaca_eval) ]] || refuse "--parts $part: there is nlp, humaneval, mt_bench, alpaca_eval"
done
declare -A taken=()
for model in "${models[@]}"; do
    name=${model##*/}
    [[ -n $name && $name != . && $name != .. ]] || refuse "$model: give the model's folder by its name"
    [[ -z ${taken[$name]:-} ]] || refuse "$model and ${taken[$name]} would both write to $RESULTS/$name; give them different --results"
    taken[$name]=$model
done
if [[ -z $no_judge && " ${parts[*]} " == *@(mt_bench|alpaca_eval)* && -z ${OPENAI_API_KEY:-} &&
    "${judge[*]} $MT_BENCH_FLAGS $ALPACA_EVAL_FLAGS $EVAL_FLAGS" != *--judge_@(base_url|key_variable)* ]]; then
    echo "There is no judge: neither a key in OPENAI_API_KEY nor --judge_base_url. MT-Bench and AlpacaEval only answer, as with --no_judge."
    no_judge=1
fi

# part_flags PART: the array `flags`, what goes to the part's Python program.
part_flags() {
    local own
    case $1 in
        nlp) own=$NLP_FLAGS ;;
        humaneval) own="$EVAL_FLAGS $HUMANEVAL_FLAGS" ;;
        mt_bench) own="$EVAL_FLAGS $MT_BENCH_FLAGS" ;;
        alpaca_eval) own="$EVAL_FLAGS $ALPACA_EVAL_FLAGS" ;;
    esac
    read -ra flags <<<"$own"
    all_as_given "$EVAL_FILES" "${flags[@]}"
    flags=("${given[@]}")
    case $1 in
        mt_bench) if [[ $no_judge ]]; then flags+=(--no_judge); else flags+=("${judge[@]}"); fi ;;
        alpaca_eval) if [[ $no_judge ]]; then flags+=(--no_evaluate_with_llm); else flags+=("${judge[@]}"); fi ;;
    esac
}

[[ -x .venv/bin/python ]] || bash scripts/setup.sh --no_model
export RESULTS
# What is missing is said once and before anything runs, not by every part in turn.
ready=(.venv/bin/python -m eval.preflight --models "${models[@]}" --parts "${parts[@]}")
[[ " $NLP_FLAGS " != *" --local "* ]] || ready+=(--local)
[[ -z $no_judge ]] || ready+=(--no_judge)
for ((i = 0; i < ${#judge[@]}; i++)); do
    [[ ${judge[i]} != --judge_@(model|base_url) ]] || ready+=("${judge[i]}" "${judge[i + 1]}")
done
if [[ $dry_run ]]; then "${ready[@]}" --estimate; else "${ready[@]}"; fi
summary=()
failures=0
for model in "${models[@]}"; do
    for part in "${parts[@]}"; do
        part_flags "$part"
        command=(bash "scripts/eval_$part.sh" "$model" -- "${flags[@]}")
        if [[ $dry_run ]]; then
            printf 'RESULTS=%q' "$RESULTS"
            printf ' %q' "${command[@]}"
            echo
            continue
        fi
        log="$RESULTS/${model##*/}/logs/$part.log"
        mkdir -p "${log%/*}"
        printf '\n== %s: %s (log: %s)\n' "$part" "$model" "$log"
        code=0
        # tee -i: on Ctrl-C the last words of the part are still written.
        "${command[@]}" 2>&1 | tee -i -a "$log" || code=${PIPESTATUS[0]}
        # Stopped by the user: the other parts are not meant to run either.
        if ((code == 130 || code == 143)); then exit "$code"; fi
        said=ok
        if ((code)); then
            said="failed ($code)"
            failures=$((failures + 1))
        elif [[ $no_judge && $part == @(mt_bench|alpaca_eval) ]]; then
            said='answered, judge skipped'
        fi
        summary+=("$(printf '%-24s %-12s %-24s %s' "${model##*/}" "$part" "$said" "$log")")
    done
done

folders=()
for model in "${models[@]}"; do folders+=("$RESULTS/${model##*/}"); done
collect=(.venv/bin/python src/collect_results.py "${folders[@]}" "$@")
if [[ $dry_run ]]; then
    printf '%q ' "${collect[@]}"
    echo
    exit 0
fi
echo
"${collect[@]}" || failures=$((failures + 1))
printf '\n%-24s %-12s %-24s %s\n' model part result log
printf '%s\n' "${summary[@]}"
if ((failures)); then
    echo "$failures failed; the same command runs again what failed and nothing that is done" >&2
    exit 1
fi
