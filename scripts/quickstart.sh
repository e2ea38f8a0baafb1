#!/usr/bin/env bash
# The first comparison: sets itself up, shows where the loss falls under IT and IM, tunes a real model with both,
# measures them beside the untuned model, and writes results/quickstart/report.html. A second run does only what is
# missing.
set -euo pipefail
# shellcheck source=scripts/sourced/from_anywhere.sh
source "$(dirname "${BASH_SOURCE[0]}")/sourced/from_anywhere.sh"

usage() {
    cat <<'TEXT'
usage: bash scripts/quickstart.sh [--fast | --full] [--train_file F [--test_file G]] [--model M] [--output_dir D]
                                  [--arms ARM...] [--arms_file F] [--seeds N...] [--max_seq_length N]
                                  [--max_bad_rows N] [--columns C]

  Files are found where the script is called; --output_dir, where relative, is the repository's.

  (nothing)        base, IT and IM on data/sample/brief_answers, one seed; some minutes on 2 CPU cores, printed first
  --full           long_answers too; also IM+NEFTune, instruction weights 0.1 and 0.3 and a prompt-only arm; 3 seeds
                   (hours on a CPU; each model's weights are deleted once it is measured)
  --fast           the same outputs from a tiny random model in a minute or two: shows that everything works, and
                   nothing else
  --train_file F   your own rows in place of the sample (any file that training takes; see README.md)
  --test_file G    your own test rows (default: rows of F, drawn at random and not trained on)
  --model M        your own model, a folder or a hub name (default: SmolLM2-135M-Instruct, fetched by the set-up)
  --output_dir D   default: results/quickstart
  --arms, --arms_file, --seeds, --max_seq_length, --max_bad_rows, --columns
                   as in src/compare.py, over what the mode says
TEXT
}

fail() {
    printf 'every option: bash scripts/quickstart.sh --help\nerror: %s\n' "$*" >&2
    exit 2
}

mode=default train_files=() test_files=() model='' output=results/quickstart arms=() arms_file=() seeds=() shared=()
while (($#)); do
    case $1 in
        --fast | --full) mode=${1#--} ;;
        --train_file | --test_file | --model | --output_dir)
            (($# > 1)) || fail "$1 needs a value"
            case $1 in
                --train_file) train_files=("$(as_given "$2")") ;;
                --test_file) test_files=("$(as_given "$2")") ;;
                --model) model=$(as_given "$2") && require_model "$model" ;;
                --output_dir) output=$2 ;;
            esac
            shift ;;
        --arms | --seeds)
            declare -n values=${1#--}
            while (($# > 1)) && [[ $2 != -* ]]; do
                values+=("$2")
                shift
            done
            ((${#values[@]})) || fail "--${!values} needs a value"
            unset -n values ;;
        --arms_file)
            (($# > 1)) || fail "$1 needs a value"
            # An arm is of the comparison alone: the inspector and the analysis know none.
            arms_file=(--arms_file "$(as_given "$2")")
            shift ;;
        --max_seq_length | --max_bad_rows | --columns)
            (($# > 1)) || fail "$1 needs a value"
            shared+=("$1" "$2")
            shift ;;
        -h | --help) usage; exit 0 ;;
        *) fail "$1: no such option" ;;
    esac
    shift
done
[[ ${#test_files[@]} -eq 0 || ${#train_files[@]} -gt 0 ]] || fail "--test_file needs --train_file"
for file in "${train_files[@]}" "${test_files[@]}"; do
    require_rows "$file"
done

if [[ $mode == fast || -n $model ]]; then
    bash scripts/setup.sh --no_model
else
    bash scripts/setup.sh
fi
python=.venv/bin/python
export TOKENIZERS_PARALLELISM=true

sample=data/sample/brief_answers
own=no
if ((${#train_files[@]})); then
    own=yes
else
    train_files=("${sample}_train.jsonl") test_files=("${sample}_test.jsonl")
    if [[ $mode == full ]]; then
        train_files+=(data/sample/long_answers_train.jsonl) test_files+=(data/sample/long_answers_test.jsonl)
    fi
fi

note='A demonstration, not evidence: one small model, few rows.'
arguments=(--output_dir "$output" "${shared[@]}" "${arms_file[@]}" --train_file "${train_files[@]}")
((${#test_files[@]} == 0)) || arguments+=(--test_file "${test_files[@]}")
case $mode in
    fast)
        model=$output/tiny-model
        "$python" src/make_tiny_model.py --output_dir "$model"
        note='A trial of the machinery with a tiny random model: its numbers mean nothing.'
        arguments+=(--num_train_epochs 2 --learning_rate 2e-3 --max_new_tokens 12 --train_responses 32 --test_responses 32
            --mixed_precision no) ;;
    full)
        ((${#arms[@]})) || arms=(IT IM IM+NEFTune IM-w0.1 IM-w0.3 prompt-only)
        ((${#seeds[@]})) || seeds=(0 1 2)
        arguments+=(--no_keep_models --max_new_tokens 128) ;;
    default)
        # What fits into some minutes on two CPU cores.
        if [[ $own == no ]]; then
            arguments+=(--num_train_epochs 2 --train_losses 32 --train_responses 32 --max_new_tokens 24)
        else
            arguments+=(--max_new_tokens 128)
        fi ;;
esac
((${#arms[@]} == 0)) || arguments+=(--arms "${arms[@]}")
((${#seeds[@]} == 0)) || arguments+=(--seeds "${seeds[@]}")
if [[ -z $model ]]; then
    model=models/SmolLM2-135M-Instruct
    note+=' The model was tuned on instructions before and restored from 4-bit weights, so that any further training on
text, whatever its masks, may repair it.'
fi

printf '\nWhere the loss falls (every option of the inspector: python src/inspect_weights.py --help)\n\n'
mkdir -p "$output"
summaries=() pages=()
for file in "${train_files[@]}"; do
    name=$(basename "${file%.*}")
    summary=$output/$name.weights.json
    "$python" src/inspect_weights.py --train_file "$file" --tokenizer_name "$model" --use_lm_loss --num_examples 1 \
        "${shared[@]}" --html "${summary%.json}.html" --summary_file "$summary"
    "$python" src/analyze_data.py "$file" --tokenizer_name "$model" "${shared[@]}" --html "$output/$name.analysis.html" \
        >"$output/$name.analysis.txt"
    summaries+=("$summary")
    pages+=("where the loss falls in $name=${summary%.json}.html" "what is in $name=$output/$name.analysis.html")
done

printf '\nBase, IT and IM\n\n'
"$python" src/compare.py --model_name_or_path "$model" --note "$note" --weights_json "${summaries[@]}" \
    --page "${pages[@]}" "${arguments[@]}"
