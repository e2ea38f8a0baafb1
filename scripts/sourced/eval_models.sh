# shellcheck shell=bash
# Sourced by scripts/eval_*.sh, whose arguments are [--results DIR] MODEL... [-- FLAGS...]: models are folders or hub names, FLAGS
# go to the Python part. Results go to RESULTS/NAME, NAME being the last part of the model's path. Goes to the repository's folder:
# models and files are found where the script was called, too; a relative RESULTS is the repository's.
#   eval_arguments "$@"       fills the arrays `models` and `flags`, and RESULTS (its default: results/eval)
#   eval_each PART COMMAND    runs COMMAND MODEL RESULTS/NAME for every model; COMMAND is a function of the sourcing script.
#                             A failing model does not stop the rest: its name is in the array `failed`, and the status is 1.

# shellcheck source=scripts/sourced/from_anywhere.sh
source "$(dirname "${BASH_SOURCE[0]}")/from_anywhere.sh"
: "${RESULTS:=results/eval}"
models=()
flags=()
failed=()

# shellcheck disable=SC2034  # The sourcing script passes the flags on.
eval_arguments() {
    local model name
    local -A taken=()
    while (($#)); do
        case $1 in
            --) shift; all_as_given "$EVAL_FILES" "$@"; flags=("${given[@]}"); break ;;
            --results) (($# > 1)) || eval_usage "--results needs a folder"; RESULTS=${2%/}; shift ;;
            -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "scripts/${0##*/}"; exit 0 ;;
            -*) eval_usage "$1: options of the Python part come after the models and a --" ;;
            *) models+=("$(as_given "${1%/}")") ;;
        esac
        shift
    done
    ((${#models[@]})) || eval_usage "no model is given"
    say_where "$RESULTS"
    for model in "${models[@]}"; do
        name=${model##*/}
        if [[ -z $name || $name == . || $name == .. ]]; then eval_usage "$model: give the model's folder by its name"; fi
        if [[ -n ${taken[$name]:-} ]]; then
            eval_usage "$model and ${taken[$name]} would both write to $RESULTS/$name; run them with different --results"
        fi
        taken[$name]=$model
    done
}

eval_usage() {
    printf 'error: %s\nusage: bash %s [--results DIR] MODEL... [-- FLAGS...]\n' "$*" "$0" >&2
    exit 2
}

eval_each() {
    local part=$1 command=$2 model code
    [[ -x .venv/bin/python ]] || bash scripts/setup.sh --no_model
    for model in "${models[@]}"; do
        printf '== %s: %s\n' "$part" "$model"
        code=0
        "$command" "$model" "$RESULTS/${model##*/}" || code=$?
        # Stopped by the user: the other models are not meant to run either.
        if ((code == 130 || code == 143)); then exit "$code"; fi
        if ((code)); then failed+=("$model"); fi
    done
    ((${#failed[@]})) || return 0
    printf "failed ($part): %s\\n" "${failed[@]}" >&2
    return 1
}
