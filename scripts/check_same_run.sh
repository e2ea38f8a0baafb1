#!/usr/bin/env bash
# Holds runs on several processes, sharded or not, against the same run on one: gradients, weights and losses, for every
# layout and arm. Writes same_run.md and same_run.json; exit code 1 where one differs. About ten minutes on two cores.
# DIR, where relative, is the repository's.
#   bash scripts/check_same_run.sh [--output_dir DIR] [--backends plain ZeRO-3 FSDP2 ...] [--processes 2 4] [--arms IT ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
# The models are so small that a second thread slows them down; nothing may wait for a hub or touch the user's cache.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 HF_HUB_OFFLINE=1 INSTRUCTION_MODELLING_CACHE=$cache
.venv/bin/python tests/support/check_same_run.py "$@"
