#!/usr/bin/env bash
# Does a loss on the instruction help on your data, and which weight?
#   bash scripts/try_im.sh DATA [MODEL] [options of src/try_im.py: --budget 2h, --dry_run, --status, --next_look, ...]
# Files are found where this is called, too; --output_dir, where relative, is the repository's.
# Sets up what is missing (without MODEL also the small model), then runs src/try_im.py.
set -euo pipefail
# shellcheck source=scripts/sourced/from_anywhere.sh
source "$(dirname "${BASH_SOURCE[0]}")/sourced/from_anywhere.sh"

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

if (($# == 0)) || [[ $1 == -h || $1 == --help ]]; then
    sed -n '2,5s/^# //p' scripts/try_im.sh
    exit $(($# == 0 ? 2 : 0))
fi
data=$(as_given "$1")
require_rows "$data"
shift
model=()
if (($#)) && [[ $1 != -* ]]; then
    model=(--model_name_or_path "$(as_given "$1")")
    require_model "${model[1]}"
    shift
    bash scripts/setup.sh --no_model
else
    bash scripts/setup.sh
fi
all_as_given "--arms_file --out_of_domain --config --model_name_or_path --model" "$@"
exec .venv/bin/python src/try_im.py "$data" "${model[@]}" "${given[@]}"
