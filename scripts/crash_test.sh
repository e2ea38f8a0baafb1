#!/usr/bin/env bash
# The long crash test: kills runs at random instants, on one process, two, and two with ZeRO-3, fails every write, flush
# and rename of a checkpoint, and compares what comes of it with runs that were left alone. Takes about an hour on two cores.
#   bash scripts/crash_test.sh [--kills 50] [--faults all] [--launchers one,two,zero3] [--seed 0] [--output_dir results/crash]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh --no_model
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 exec .venv/bin/python tests/crash/crash_test.py "$@"
