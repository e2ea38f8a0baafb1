#!/bin/sh
# AlpaGasus (dolly_3k, chatgpt_9k, claude_t45) from its own repository, downloaded and converted.
#   sh prepare_alpagasus_data.sh [SET...] [--list] [--help]
set -eu
cd "$(dirname "$0")"
[ -x .venv/bin/python ] || { echo "error: there is no environment yet; make it with: bash scripts/setup.sh" >&2; exit 2; }
exec .venv/bin/python src/prepare_data.py --collection alpagasus "$@"
