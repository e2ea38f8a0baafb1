#!/usr/bin/env bash
# Instruction Modelling (IM) on the paper's seven data sets: Table 1's IM rows.
# Variables: scripts/sourced/sweep_variables.sh. Arguments: those of src/sweep.py (--dry_run, --list, --rows 3, ...), then -- and
# flags of src/finetune.py.
set -euo pipefail
# shellcheck source=scripts/sourced/sweep_variables.sh
. "$(dirname "${BASH_SOURCE[0]}")/sourced/sweep_variables.sh"
own_arm im
sweep instruction_modelling --use_lm_loss "$@"
