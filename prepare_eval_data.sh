#!/bin/sh
# What the benchmarks need, downloaded. Without a name, what the paper's need.
#   sh prepare_eval_data.sh [SET...] [--list] [--help]
set -eu
cd "$(dirname "$0")"
. scripts/sourced/project_python.sh
exec "$python" src/prepare_eval_data.py "$@"
