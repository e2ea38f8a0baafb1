#!/usr/bin/env bash
# 3,000 rows of Tulu V2 with an instruction about 5, 10 and 15 times as long as the output, IT or with ARM=im IM: Figure 2,
# left. src/select_data.py makes the files.
# Variables: scripts/sourced/sweep_variables.sh. Arguments: those of src/sweep.py (--dry_run, --list, --rows 3, ...), then -- and
# flags of src/finetune.py.
set -euo pipefail
: "${DATA_NAME_LIST:=tulu_ratio_5_3000 tulu_ratio_10_3000 tulu_ratio_15_3000}" "${ARM:=it}"
# shellcheck source=scripts/sourced/sweep_variables.sh
. "$(dirname "${BASH_SOURCE[0]}")/sourced/sweep_variables.sh"
if [[ $ARM == im ]]; then set -- --use_lm_loss "$@"; fi
sweep "length_ratio_$ARM" "$@"
