#!/usr/bin/env bash
# Holds some 30 chats (turns, system text, reasoning, tools, odd orders) by every chat template of folders and of installed
# packages against what the model has to write in each turn. Writes chat_formats.md and chat_formats.json; exit code 1 where
# a turn is trained wrongly or a row is refused that could be trained. A second or so a template.
#   bash scripts/sweep_chat_formats.sh [--templates FOLDER ...] [--packages trl ...] [--output_dir DIR]
# Folders of templates are found where this is called, too; DIR (chat_formats), where relative, is the repository's.
set -euo pipefail
# shellcheck source=scripts/sourced/from_anywhere.sh
source "$(dirname "${BASH_SOURCE[0]}")/sourced/from_anywhere.sh"
all_as_given --templates "$@"

OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 HF_HUB_OFFLINE=1 exec .venv/bin/python tests/support/sweep_chat_formats.py "${given[@]}"
