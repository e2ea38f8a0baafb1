#!/usr/bin/env bash
# Llama-2-13B on the paper's seven data sets, IT or with ARM=im IM: Figure 5.
# Variables: scripts/sourced/sweep_variables.sh. Arguments: those of src/sweep.py (--dry_run, --list, --rows 3, ...), then -- and
# flags of src/finetune.py.
set -euo pipefail
: "${MODEL_SIZE:=13b}" "${NUM_GPUS:=4}" "${ARM:=it}"
# shellcheck source=scripts/sourced/sweep_variables.sh
. "$(dirname "${BASH_SOURCE[0]}")/sourced/sweep_variables.sh"
if [[ $ARM == im ]]; then set -- --use_lm_loss "$@"; fi
sweep "llama2_13b_$ARM" "$@"
