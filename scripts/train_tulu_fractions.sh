#!/usr/bin/env bash
# 10, 20, 50 and 100 % of Tulu V2, IT or with ARM=im IM: Figures 2 and 6.
# src/sample_data.py --fraction 0.1 0.2 0.5 --how first makes the files.
# Variables: scripts/sourced/sweep_variables.sh. Arguments: those of src/sweep.py (--dry_run, --list, --rows 3, ...), then -- and
# flags of src/finetune.py.
set -euo pipefail
: "${DATA_NAME_LIST:=tulu_dataset_01 tulu_dataset_02 tulu_dataset_05 tulu_v2_data}" "${ARM:=it}"
# shellcheck source=scripts/sourced/sweep_variables.sh
. "$(dirname "${BASH_SOURCE[0]}")/sourced/sweep_variables.sh"
if [[ $ARM == im ]]; then set -- --use_lm_loss "$@"; fi
sweep "tulu_fractions_$ARM" "$@"
