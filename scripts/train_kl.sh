#!/usr/bin/env bash
# IT with a KL term to the untuned model: LIMA with weights 0.01, 0.1 and 1 (Table 7), and for Table 3's other row
#   DATA_NAME_LIST=alpagasus_9k_dolly KL_PENALTY_CTL=1.0 bash scripts/train_kl.sh
# The term is the paper's Eq. 5; RECIPE=released runs what the authors' code added in its place, as the tables were made.
# Variables: scripts/sourced/sweep_variables.sh. Arguments: those of src/sweep.py (--dry_run, --list, --rows 3, ...), then -- and
# flags of src/finetune.py.
set -euo pipefail
: "${DATA_NAME_LIST:=lima_data}" "${KL_PENALTY_CTL:=0.01 0.1 1.0}"
read -ra weights <<<"$KL_PENALTY_CTL"
# shellcheck source=scripts/sourced/sweep_variables.sh
. "$(dirname "${BASH_SOURCE[0]}")/sourced/sweep_variables.sh"
own_arm it
sweep kl --kl_weights "${weights[@]}" "$@"
