#!/bin/sh
# The training sets of the paper and of the Tülu mixtures, downloaded and converted. Without a name, the paper's seven.
#   sh prepare_train_data.sh [SET...] [--list] [--help]
set -eu
cd "$(dirname "$0")"
. scripts/sourced/project_python.sh
exec "$python" src/prepare_data.py "$@"
