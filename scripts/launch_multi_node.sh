#!/usr/bin/env bash
# Starts this machine's part of a training run on several machines: run it on each of them, with the same settings.
set -euo pipefail
# shellcheck source=scripts/sourced/from_anywhere.sh
source "$(dirname "${BASH_SOURCE[0]}")/sourced/from_anywhere.sh"

usage() {
    cat <<'TEXT'
usage: NNODES=2 HEAD_ADDR=10.0.0.1 bash scripts/launch_multi_node.sh --model_name_or_path M --train_file F --output_dir OUT ...

The machines find each other at HEAD_ADDR:HEAD_PORT (c10d rendezvous); --output_dir must be on a file system all of them
share, and is the repository's where it is relative. The arguments are those of src/finetune.py;
--resume_from_checkpoint latest is added. Models, files and configurations are found where this is called, too.

  NNODES              machines (needed)
  HEAD_ADDR           a name or address of the first machine that the others reach (needed)
  HEAD_PORT           a free port there (29500)
  NODE_RANK           0 for the first machine, 1, 2, ... for the others (0; the rendezvous numbers them anew)
  GPUS_PER_NODE       processes a machine (what nvidia-smi lists; without it 1, on the CPU)
  SHARDING            deepspeed (default), fsdp or none
  DEEPSPEED_CONFIG    for deepspeed (ds_configs/stage3_no_offloading_accelerate.conf)
  FSDP_CONFIG         for fsdp (fsdp_configs/fsdp2.yaml)
  MIXED_PRECISION     bf16 or no (bf16)
  MAX_RESTARTS        times that torch starts failed processes again, from the last checkpoint (0). On one machine that
                      works; on several, machines that noticed the failure differently may wait for each other forever
  DRY_RUN             print the command and start nothing
TEXT
}

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

[[ ${1:-} != -h && ${1:-} != --help ]] || { usage; exit 0; }
[[ -n ${NNODES:-} ]] || fail "NNODES is not set: the number of machines (--help tells all settings)"
[[ -n ${HEAD_ADDR:-} ]] || fail "HEAD_ADDR is not set: an address of the first machine (--help tells all settings)"
: "${HEAD_PORT:=29500}" "${NODE_RANK:=0}" "${SHARDING:=deepspeed}" "${MIXED_PRECISION:=bf16}" "${MAX_RESTARTS:=0}" "${DRY_RUN:=}"
DEEPSPEED_CONFIG=$(as_given "${DEEPSPEED_CONFIG:-}") FSDP_CONFIG=$(as_given "${FSDP_CONFIG:-}")
: "${DEEPSPEED_CONFIG:=ds_configs/stage3_no_offloading_accelerate.conf}" "${FSDP_CONFIG:=fsdp_configs/fsdp2.yaml}"
if [[ -z ${GPUS_PER_NODE:-} ]]; then
    GPUS_PER_NODE=$(nvidia-smi --list-gpus 2>/dev/null | wc -l) || GPUS_PER_NODE=0
    ((GPUS_PER_NODE)) || GPUS_PER_NODE=1
fi
for name in NNODES HEAD_PORT NODE_RANK GPUS_PER_NODE MAX_RESTARTS; do
    [[ ${!name} =~ ^[0-9]+$ ]] || fail "$name is ${!name}: it must be a number"
done
((NODE_RANK < NNODES)) || fail "NODE_RANK is $NODE_RANK: with $NNODES machines it is 0 to $((NNODES - 1))"

folder="" lost_after=60
arguments=("$@")
for ((i = 0; i + 1 < $#; i++)); do
    [[ ${arguments[i]} == --output_dir ]] && folder=${arguments[i + 1]}
    [[ ${arguments[i]} == --lost_after ]] && lost_after=${arguments[i + 1]}
done
[[ $lost_after =~ ^[0-9]+$ ]] || fail "--lost_after is $lost_after: it must be a number of seconds"
[[ -n $folder ]] || fail "--output_dir is not given: a folder on a file system that all machines share"

say_where "$folder"
all_as_given "$TRAINING_FILES" "$@"
[[ -x .venv/bin/python ]] || bash scripts/setup.sh --no_model
together=(--rdzv_backend c10d --max_restarts "$MAX_RESTARTS")
watched=(.venv/bin/python -m instruction_modelling.processes.launcher "$lost_after")
accelerate=("${watched[@]}" .venv/bin/accelerate launch --num_machines "$NNODES" --machine_rank "$NODE_RANK" --num_processes
    "$((NNODES * GPUS_PER_NODE))" --main_process_ip "$HEAD_ADDR" --main_process_port "$HEAD_PORT"
    --mixed_precision "$MIXED_PRECISION")
case $SHARDING in
    # DeepSpeed's own launchers would log in to the other machines; the standard one is torch's, on each.
    deepspeed) command=("${accelerate[@]}" "${together[@]}" --use_deepspeed --deepspeed_multinode_launcher standard
        --deepspeed_config_file "$DEEPSPEED_CONFIG") ;;
    fsdp) command=("${accelerate[@]}" "${together[@]}" --config_file "$FSDP_CONFIG") ;;
    none) command=("${watched[@]}" .venv/bin/torchrun --nnodes "$NNODES" --nproc_per_node "$GPUS_PER_NODE" --rdzv_endpoint "$HEAD_ADDR:$HEAD_PORT"
        --rdzv_id "$(basename "$folder")" "${together[@]}") ;;
    *) fail "SHARDING is $SHARDING: deepspeed, fsdp or none" ;;
esac
command+=(src/finetune.py "${given[@]}" --resume_from_checkpoint latest)
[[ $SHARDING == none ]] && command+=(--mixed_precision "$MIXED_PRECISION")

if [[ -n $DRY_RUN ]]; then
    printf '%q ' "${command[@]}"
    printf '\n'
    exit 0
fi
exec "${command[@]}"
