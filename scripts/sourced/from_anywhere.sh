# shellcheck shell=bash
# Sourced first by scripts whose arguments name files: goes to the repository's folder.
#   as_given PATH      prints PATH so that it names there what it named where the script was called; any other word as it is
#   all_as_given FLAGS WORDS...
#                      fills the array `given` with the words; what follows one of these flags, or stands behind its =, as_given
#   say_where FOLDER   says, where the script was called elsewhere, that a relative folder of results is one of the repository's
#   require_rows PATH  and
#   require_model NAME call `fail` where nothing of that name is there and it can be no name of the hub: before minutes of
#                      setting up
#   TRAINING_FILES     the flags of src/finetune.py that name models and files; EVAL_FILES: of the benchmarks

# shellcheck disable=SC2034  # The sourcing script uses them.
EVAL_FILES="--config --tokenizer_name_or_path --local_dir --data_file --data_dir --model_outputs --reference_path --length_controlled_file \
--answers --baseline_answers"
# shellcheck disable=SC2034
TRAINING_FILES="--model_name_or_path --tokenizer_name --config_name --train_file --eval_file --sample_file --loss_patterns --config \
--chat_format --resume_from_checkpoint"
called_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

as_given() {
    if [[ $called_from != "$PWD" && $1 != /* && -n $1 && -e $called_from/$1 ]]; then
        printf '%s\n' "$called_from/$1"
    else
        printf '%s\n' "$1"
    fi
}

# shellcheck disable=SC2034  # The sourcing script passes `given` on.
all_as_given() {
    local flags=" $1 " flag='' word
    given=()
    shift
    for word; do
        case $word in
            --*=*) if [[ $flags == *" ${word%%=*} "* ]]; then word=${word%%=*}=$(as_given "${word#*=}"); fi ;;
            --*) flag=$word ;;
            *) if [[ $flags == *" $flag "* ]]; then word=$(as_given "$word"); fi ;;
        esac
        given+=("$word")
    done
}

say_where() {
    if [[ $called_from != "$PWD" && $1 != /* ]]; then printf 'results go to %s\n' "$PWD/$1" >&2; fi
}

require_rows() {
    [[ -e $1 || $1 == *:* ]] || fail "$1: there is no such file"
}

require_model() {
    if [[ ! -e $1 && ($1 == [/.~]* || $1 == */*/* || ($1 == */* && -d ${1%/*})) ]]; then fail "$1: there is no such folder"; fi
}
