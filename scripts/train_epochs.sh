#!/usr/bin/env bash
# 2, 4, 6, 8 and 10 epochs, IT or with ARM=im IM: Figures 4, 10 and 11. Each number is a run of its own, whose schedule
# ends at its own last step.
# Variables: scripts/sourced/sweep_variables.sh. Arguments: those of src/sweep.py (--dry_run, --list, --rows 3, ...), then -- and
# flags of src/finetune.py.
set -euo pipefail
: "${DATA_NAME_LIST:=lima_data alpagasus_9k_dolly alpagasus_3k_dolly mmlu_chat tydiqa}" "${EPOCH:=2 4 6 8 10}" "${ARM:=it}"
# shellcheck source=scripts/sourced/sweep_variables.sh
. "$(dirname "${BASH_SOURCE[0]}")/sourced/sweep_variables.sh"
if [[ $ARM == im ]]; then set -- --use_lm_loss "$@"; fi
sweep "epochs_$ARM" "$@"
