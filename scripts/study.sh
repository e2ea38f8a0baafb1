#!/usr/bin/env bash
# The study of docs/results.md: what a loss on the instruction does to a small model, on real data, with seeds and controls.
#   bash scripts/study.sh [options of src/study.py: --dolly FILE, --lima FILE, --only CELL, --dry_run, --status, ...]
# Data and model are found where this is called, too; --output_dir, --results_dir and --page, where relative, are the repository's.
# Sets up what is missing, then runs what is not recorded in docs/results/ yet; stopped, the same command goes on.
set -euo pipefail
# shellcheck source=scripts/sourced/from_anywhere.sh
source "$(dirname "${BASH_SOURCE[0]}")/sourced/from_anywhere.sh"
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,5s/^# //p' scripts/study.sh
    exit 0
fi
all_as_given "--dolly --lima --model_name_or_path --model --config" "$@"
bash scripts/setup.sh
# One thread: sums in one order, and so the same losses, whatever else the machine does.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec .venv/bin/python src/study.py "${given[@]}"
