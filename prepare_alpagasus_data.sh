#!/bin/sh
# AlpaGasus (dolly_3k, chatgpt_9k, claude_t45) from its own repository, downloaded and converted.
#   sh prepare_alpagasus_data.sh [SET...] [--list] [--help]
set -eu
cd "$(dirname "$0")"
. scripts/sourced/project_python.sh
exec "$python" src/prepare_data.py --collection alpagasus "$@"
