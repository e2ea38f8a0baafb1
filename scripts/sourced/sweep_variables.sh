# shellcheck shell=bash
# Sourced by scripts/train_*.sh: the variables of a sweep, each kept where the environment has set it, and the call of the
# runner. Lists are words in one string: DATA_NAME_LIST="lima_data alpagasus_3k_dolly" LR="1e-5 2e-5" SEEDS="0 1 2".
# Goes to the repository's folder: MODEL_PATH, DATA_ROOT and DEEPSPEED_CONFIG are found where the script was called, too;
# OUTPUT_ROOT is the repository's.

# shellcheck source=scripts/sourced/from_anywhere.sh
. "$(dirname "${BASH_SOURCE[0]}")/from_anywhere.sh"
refuse() {
    echo "error: $1" >&2
    exit 2
}
for name in MODEL_PATH DATA_ROOT DEEPSPEED_CONFIG; do
    printf -v "$name" %s "$(as_given "${!name:-}")"
done
: "${MODEL_SIZE:=7b}" "${MODEL_PATH:=meta-llama/Llama-2-${MODEL_SIZE}-hf}" "${MODEL_NAME:=llama2_${MODEL_SIZE}}"
: "${NUM_GPUS:=2}" "${BATCH_SIZE_PER_GPU:=1}" "${TOTAL_BATCH_SIZE:=128}" "${EPOCH:=2}" "${MAX_LENGTH:=2048}" "${LR:=2e-5}"
: "${SEEDS:=0}" "${RECIPE:=paper}" "${DATA_ROOT:=data}" "${OUTPUT_ROOT:=model}" "${DRY_RUN:=}"
: "${DEEPSPEED_CONFIG:=ds_configs/stage3_no_offloading_accelerate.conf}" "${MIXED_PRECISION:=bf16}" "${MAIN_PROCESS_PORT:=29521}"
if [[ ${ARM:-it} != it && ${ARM:-it} != im ]]; then
    refuse "ARM=$ARM: it or im is expected, in small letters"
fi
for name in NUM_GPUS BATCH_SIZE_PER_GPU TOTAL_BATCH_SIZE EPOCH MAX_LENGTH LR SEEDS MAIN_PROCESS_PORT \
    NEFTUNE_ALPHA KL_PENALTY_CTL INSTRUCTION_LOSS_WEIGHTS SIZES; do
    for word in ${!name:-}; do
        [[ $word =~ ^[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?$ ]] || refuse "$name=${!name}: $word is no number"
    done
done
less=adam_sim_trainp0.05_seed3_p0.05
if [[ -z ${DATA_NAME_LIST:-} ]]; then
    DATA_NAME_LIST="lima_data alpagasus_3k_dolly alpagasus_9k_dolly alpagasus_claude_t45_alpaca tydiqa mmlu_chat bbh_icl"
fi

# The file of a data set's name, under DATA_ROOT and without .jsonl.
dataset_path() {
    case $1 in
        tydiqa) echo "tydiqa_$less" ;;
        mmlu_chat) echo "mmlu-chat_$less" ;;
        bbh_icl) echo "bbh-icl_$less" ;;
        tulu_v2_data) echo "processed/tulu_v2/tulu_v2_data" ;;
        *) echo "$1" ;;
    esac
}

# own_arm ARM: for a script whose arm is the one that its name says; another ARM would be trained as if nobody had asked.
own_arm() {
    [[ ${ARM:-$1} == "$1" ]] || refuse "ARM=$ARM: ${0##*/} has an arm of its own, whatever ARM says; leave ARM out, and for \
other arms run their own scripts, or train_instruction_tuning.sh --arms NAME (docs/sweeps.md)"
}

# sweep NAME FLAGS...: runs the rows. Flags before a -- are the runner's, those after it the training script's.
sweep() {
    local name=$1 path
    shift
    local -a names epochs rates seeds paths=()
    read -ra names <<<"$DATA_NAME_LIST"
    read -ra epochs <<<"$EPOCH"
    read -ra rates <<<"$LR"
    read -ra seeds <<<"$SEEDS"
    if [[ -n ${DATASET_PATH_LIST:-} ]]; then
        read -ra paths <<<"$DATASET_PATH_LIST"
    else
        for path in "${names[@]}"; do paths+=("$(dataset_path "$path")"); done
    fi
    say_where "$OUTPUT_ROOT"
    all_as_given "--arms_file $TRAINING_FILES" "$@"
    [[ -x .venv/bin/python ]] || bash scripts/setup.sh --no_model
    exec .venv/bin/python src/sweep.py --name "$name" --model_path "$MODEL_PATH" --model_name "$MODEL_NAME" \
        --data_names "${names[@]}" --dataset_paths "${paths[@]}" --data_root "$DATA_ROOT" --output_root "$OUTPUT_ROOT" \
        --num_gpus "$NUM_GPUS" --batch_size_per_gpu "$BATCH_SIZE_PER_GPU" --total_batch_size "$TOTAL_BATCH_SIZE" \
        --max_length "$MAX_LENGTH" --epochs "${epochs[@]}" --learning_rates "${rates[@]}" --seeds "${seeds[@]}" \
        --recipe "$RECIPE" --deepspeed_config "$DEEPSPEED_CONFIG" --mixed_precision "$MIXED_PRECISION" \
        --main_process_port "$MAIN_PROCESS_PORT" ${DRY_RUN:+--dry_run} ${given[@]+"${given[@]}"}
}
