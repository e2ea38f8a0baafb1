#!/bin/sh
# The training sets of the paper and of the Tülu mixtures, downloaded and converted. Without a name, the paper's seven.
#   sh prepare_train_data.sh [SET...] [--list] [--help]
set -eu
cd "$(dirname "$0")"
[ -x .venv/bin/python ] || { echo "error: there is no environment yet; make it with: bash scripts/setup.sh" >&2; exit 2; }
exec .venv/bin/python src/prepare_data.py "$@"
