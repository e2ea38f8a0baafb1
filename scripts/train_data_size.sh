#!/usr/bin/env bash
# 1,000 to 35,000 rows of Tulu V2 at a length ratio of about 10, IT or with ARM=im IM: Figure 2, right.
# src/select_data.py makes the files.
# Variables: scripts/sourced/sweep_variables.sh. Arguments: those of src/sweep.py (--dry_run, --list, --rows 3, ...), then -- and
# flags of src/finetune.py.
set -euo pipefail
: "${SIZES:=1000 2000 3000 4000 5000 7500 10000 12500 15000 17500 20000 22500 25000 27500 35000}" "${ARM:=it}"
if [[ -z ${DATA_NAME_LIST:-} ]]; then
    read -ra sizes <<<"$SIZES"
    DATA_NAME_LIST="${sizes[*]/#/tulu_ratio_10_}"
fi
# shellcheck source=scripts/sourced/sweep_variables.sh
. "$(dirname "${BASH_SOURCE[0]}")/sourced/sweep_variables.sh"
if [[ $ARM == im ]]; then set -- --use_lm_loss "$@"; fi
sweep "data_size_$ARM" "$@"
