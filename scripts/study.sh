#!/usr/bin/env bash
# The study of docs/results.md: what a loss on the instruction does to a small model, on real data, with seeds and controls.
#   bash scripts/study.sh [options of src/study.py: --dolly FILE, --lima FILE, --only CELL, --dry_run, --status, ...]
# Sets up what is missing, then runs what is not recorded in docs/results/ yet; stopped, the same command goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"
    exit 0
fi
bash scripts/setup.sh
# One thread: sums in one order, and so the same losses, whatever else the machine does.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec .venv/bin/python src/study.py "$@"
