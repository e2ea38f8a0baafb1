#!/usr/bin/env bash
# NEFTune on the paper's seven data sets: Table 1's NEFTune rows.
# Variables: scripts/sourced/sweep_variables.sh. Arguments: those of src/sweep.py (--dry_run, --list, --rows 3, ...), then -- and
# flags of src/finetune.py.
set -euo pipefail
: "${NEFTUNE_ALPHA:=5}"
# shellcheck source=scripts/sourced/sweep_variables.sh
. "$(dirname "${BASH_SOURCE[0]}")/sourced/sweep_variables.sh"
own_arm it
sweep neftune --neftune_alpha "$NEFTUNE_ALPHA" "$@"
