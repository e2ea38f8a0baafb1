#!/usr/bin/env bash
# Instruction loss weights between IT and IM on the paper's seven data sets (not in the paper; later studies find the best
# weights here).
# Variables: scripts/sourced/sweep_variables.sh. Arguments: those of src/sweep.py (--dry_run, --list, --rows 3, ...), then -- and
# flags of src/finetune.py.
set -euo pipefail
: "${INSTRUCTION_LOSS_WEIGHTS:=0.01 0.1 0.2 0.3 0.5}"
read -ra weights <<<"$INSTRUCTION_LOSS_WEIGHTS"
# shellcheck source=scripts/sourced/sweep_variables.sh
. "$(dirname "${BASH_SOURCE[0]}")/sourced/sweep_variables.sh"
own_arm none
sweep fractional_weights --instruction_loss_weights "${weights[@]}" "$@"
